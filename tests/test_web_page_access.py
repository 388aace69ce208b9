"""The page for everybody: keyboard, screen readers, narrow and wide, dark and light; and what is not to be believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.fakes import encode, make_slice
from tests.web_browser import Visit, needs_browser, numbered, problem, serve_page, visit

pytestmark = needs_browser

DARK, HIGH, BRIGHT = (encode(make_slice(level)) for level in (20, 100, 200))
SMALL = encode(make_slice(200, side=40))
NOTICE = "Research software. Not a medical device. Not for diagnosis or triage of patients."
TORN = BRIGHT[:-200]
MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[str]:
    with serve_page(tiny_models) as address:
        yield address


def answer_not_analysed(here: Visit) -> None:
    """Has the next images not analysed, for a reason with markup in it."""
    reasons = [{"reason": "NO_HEAD", "message": f"There is no head. {MARKUP}"}]
    body = {"class": None, "confidence": None, "status": "NOT_ANALYSED", "reasons": reasons, "warnings": reasons}
    body |= {"scores": {"normal": 0.5, MARKUP: 0.5}, "positive_label": MARKUP, "positive_probability": 0.5}
    body |= {"threshold": 0.05, "timings": {}, **dict.fromkeys(("model", "version", "digest", "id"), MARKUP)}
    here.judge_as(body)


def fill(here: Visit) -> None:
    """Brings the page into a state with everything in its table."""
    here.add(("a/normal.png", DARK), ("a/stroke.png", HIGH), ("small.png", SMALL), ("torn.png", TORN), ("no.pdf", b"x"))
    here.page.locator("#threshold").evaluate(
        "slider => { slider.value = 0.5; slider.dispatchEvent(new Event('input')) }"
    )
    here.page.locator(".name").first.click()
    here.page.locator("#model-more summary").click()


def find_violations(here: Visit) -> list[str]:
    found = Axe().run(here.page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(browser: Browser, url: str, scheme: str, width: int) -> None:
    """Empty, with answers of all kinds, during a run, stopped, and when a token is asked for."""
    with visit(browser, url, color_scheme=scheme, viewport={"width": width, "height": 800}) as here:
        here.open()
        assert find_violations(here) == []
        fill(here)
        assert find_violations(here) == []
        here.page.route("**/predict?*", lambda route: None)  # no answer, so that the run stays as it is
        here.add(*numbered([DARK], 5), wait=False)
        expect(here.page.get_by_role("progressbar")).to_be_visible()
        assert find_violations(here) == []
        here.page.click("#stop")
        here.wait()
        here.page.unroute("**/predict?*")
        answer_not_analysed(here)
        here.add(("blank.png", DARK))
        assert find_violations(here) == []
        here.page.unroute("**/predict?*")
        here.answer("predict?*", problem(401, "TOKEN_MISSING", "A token is needed."))
        here.add(("late.png", DARK))
        expect(here.page.locator("#token")).to_be_focused()
        assert find_violations(here) == []


def test_nothing_scrolls_sideways_and_the_notice_stays(here: Visit) -> None:
    """On a telephone and on a wide screen, wherever one is on the page, whatever files are called."""
    fill(here)
    here.add(("long" * 50 + ".png", DARK), *numbered([DARK, BRIGHT], 10))
    for width in (360, 1024, 1920):
        here.page.set_viewport_size({"width": width, "height": 700})
        sizes = here.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes == [width, width]
        for place in ("#results", "footer"):
            here.page.locator(place).evaluate("element => element.scrollIntoView()")
            expect(here.page.get_by_text(NOTICE)).to_be_in_viewport(ratio=1)
            box = here.page.get_by_role("banner").bounding_box()
            assert box is not None
            assert box["y"] == 0


def test_everything_is_done_with_the_keyboard(here: Visit, tmp_path: Path) -> None:
    """From choosing files to saving the table, in the order of the page, and one sees where one is."""
    (tmp_path / "a.png").write_bytes(BRIGHT)
    (tmp_path / "b.png").write_bytes(DARK)
    press = here.page.keyboard.press
    here.page.on(
        "filechooser", lambda chooser: None
    )  # from now on, or the first dialog may come before it is waited for
    press("Tab")
    assert here.focused() == "choose-files"
    assert here.page.locator(":focus-visible").evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    with here.page.expect_file_chooser() as chooser:
        press("Enter")
    chooser.value.set_files([tmp_path / "a.png", tmp_path / "b.png"])
    expect(here.page.locator("tbody")).to_have_count(2)
    here.wait()

    seen = []
    while here.focused() != "Confidence":
        press("Tab")
        seen.append(here.focused())
        if seen[-1] == "threshold":
            before = here.text("threshold-value")
            press("End")
            assert before != here.text("threshold-value") == "1.000"
    assert seen == [
        *(
            "choose-folder",
            "Try another threshold",
            "threshold",
            "threshold-reset",
            "About this model",
            "save",
            "clear",
        ),
        *("all 2", "stroke 1", "normal 1", "would change 1", "Image", "Answer", "positive-head", "Confidence"),
    ]
    press("Enter")
    press("Tab")
    press("Enter")
    expect(here.page.locator(".name").first).to_have_attribute("aria-expanded", "true")
    expect(here.page.locator(".more").first).to_be_visible()


def test_screen_readers_are_told(here: Visit) -> None:
    """Landmarks, headings of columns and rows, and what happened without having to look for it."""
    for landmark in ("banner", "main", "contentinfo"):
        expect(here.page.get_by_role(landmark)).to_have_count(1)  # type: ignore[arg-type]
    here.add(*numbered([DARK, BRIGHT], 4), ("torn.png", TORN))

    table = here.page.get_by_role("table", name="Answers of the server, one row for each image")
    expect(table.get_by_role("columnheader")).to_have_count(6)
    expect(table.get_by_role("rowheader")).to_have_count(5)
    expect(here.page.get_by_role("slider", name="Threshold to try")).to_be_visible()
    expect(here.page.locator("#spoken[role=status]")).to_have_text("5 images: 2 stroke, 2 normal, 1 refused.")


def test_nothing_moves_for_those_who_do_not_want_it(browser: Browser, url: str) -> None:
    """prefers-reduced-motion."""
    with visit(browser, url, reduced_motion="reduce") as here:
        here.open()
        fill(here)
        durations = "all => [...new Set(all.map(one => getComputedStyle(one).transitionDuration))]"
        assert here.page.locator("*").evaluate_all(durations) == ["0s"]


def test_names_and_texts_of_others_stay_text(here: Visit) -> None:
    """Markup in the name of a file, in a label and in the server's sentences is shown as it is."""
    answer_not_analysed(here)
    here.add((f"{MARKUP.replace('/', '')}.png", DARK))
    here.page.unroute("**/predict?*")
    here.page.click(".name")
    assert f"There is no head. {MARKUP} NO_HEAD" in here.rows()[0][4]
    here.answer("predict?*", problem(422, MARKUP, MARKUP, id=MARKUP))
    here.add(("b.png", DARK))

    assert MARKUP in here.rows()[1][4]
    assert here.page.locator("tbody img[src=x], tbody script").count() == 0
    expect(here.page.get_by_role("columnheader", name=f"P({MARKUP})")).to_be_visible()


def test_a_hostile_label_stays_text(here: Visit) -> None:
    """In the table, in the sentence about thresholds, and among the filters."""
    body = {"class": MARKUP, "confidence": 0.9, "status": "ANALYSED", "scores": {MARKUP: 0.9, "__proto__": 0.1}}
    body |= {"positive_label": MARKUP, "positive_probability": 0.9, "threshold": 0.05, "model": "m", "version": "1"}
    here.judge_as(body)
    here.add(("a.png", DARK))
    here.page.locator("#threshold").fill("0.95")

    assert here.column(1) == [f"● {MARKUP}\n→ would be __proto__"]
    assert f"1 {MARKUP} → __proto__" in here.text("threshold-text")
    expect(here.page.locator("#filters")).to_contain_text(f"{MARKUP} 1")
    assert here.page.locator("main img, main script").count() == 0
