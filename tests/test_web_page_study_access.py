"""Studies on the page for everybody: keyboard, screen readers, narrow and wide, and what is not to be believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.access import token_of, write_tokens
from tests.test_web_page_access import MARKUP, find_violations
from tests.test_web_page_study import BONE, FILES, expect_picture, find_studies
from tests.web_browser import Visit, needs_browser, problem, serve_page, visit

pytestmark = needs_browser


@pytest.fixture(scope="module")
def url(study_models: Path) -> Iterator[str]:
    with serve_page(study_models, "--explain") as address:
        yield address


def make_answer(**fields: Any) -> dict[str, Any]:
    """An answer in which every text is markup."""
    reasons = [{"reason": MARKUP, "message": MARKUP}]
    one = {"id": "1", "frame": 0, "position_mm": None, "positive_probability": 0.9, "status": "ANALYSED"}
    one |= {"reasons": reasons, "image_sha256": None, "error": None}
    series = {"series_instance_uid": MARKUP, "slices": 1, "reason": MARKUP, "message": MARKUP, "spacing_mm": 5}
    refused = {**one, "id": MARKUP, "status": None, "error": {"reason": MARKUP, "detail": MARKUP}}
    texts = dict.fromkeys(("class", "positive_label", "model", "version", "digest", "id", "study_instance_uid"), MARKUP)
    answer = {**texts, "status": "ANALYSED", "score": 0.9, "threshold": 0.5, "top_k": 3, "first_look_id": "1"}
    answer |= {"first_look_frame": 0, "slices": [one], "series": {**series, "tilt_degrees": 1}, "left_out": [series]}
    return {**answer, "failures": [refused], "warnings": reasons, "reasons": [], **fields}


def show_everything(here: Visit) -> None:
    """A study with all that its card can hold, one that is not analysed, and one that was refused."""
    here.add(*FILES, *BONE, ("no.dcm", FILES[0][1][:700]))
    study = find_studies(here).first
    for details in study.locator("summary").all():
        if not details.evaluate("one => one.parentElement.open"):
            details.click()
    study.get_by_role("button", name="Heatmap").click()
    expect_picture(study, "Slice 4 of")
    reasons = [{"reason": "NO_SERIES", "message": "No series of the study could be judged."}]
    nothing = {"class": None, "score": None, "status": "NOT_ANALYSED", "reasons": reasons, "slices": [], "series": None}
    refusal = problem(413, "STUDY_TOO_LARGE", "A study may have 8 slices.")
    here.answer("study", {"json": make_answer(**nothing)}, refusal)
    here.add(*FILES)
    here.add(*FILES)
    expect(find_studies(here)).to_have_count(3)
    here.page.unroute("**/study")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1920), ("dark", 360)])
def test_axe_finds_nothing(browser: Browser, url: str, scheme: str, width: int) -> None:
    """With answers of all kinds, and while a study is sent."""
    with visit(browser, url, color_scheme=scheme, viewport={"width": width, "height": 800}) as here:
        here.open()
        show_everything(here)
        assert find_violations(here) == []
        here.page.route("**/study", lambda route: None)
        here.add(*FILES, wait=False)
        expect(find_studies(here).last.get_by_role("progressbar")).to_be_visible()
        assert find_violations(here) == []


def test_nothing_scrolls_sideways(here: Visit) -> None:
    """On a telephone and on a wide screen, whatever files are called."""
    show_everything(here)
    here.add(*[(f"{'long' * 50}-{name}", data) for name, data in FILES])
    for width in (360, 1024, 1920):
        here.page.set_viewport_size({"width": width, "height": 700})
        sizes = here.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes == [width, width]


def test_texts_of_others_stay_text(here: Visit) -> None:
    """Markup in the name of a file and in every text of an answer is shown as it is."""
    here.answer("study", {"json": make_answer()})
    here.add(*[(f"{MARKUP.replace('/', '')}-{name}", data) for name, data in FILES])
    study = find_studies(here)
    expect(study.locator(".said .badge")).to_have_text(f"● {MARKUP}")
    for details in study.locator("details").all():
        details.evaluate("one => { one.open = true; }")

    assert study.inner_text().count("onerror") > 10
    assert study.locator("img").count() == 1
    assert study.locator("script").count() == 0


def test_a_study_is_looked_through_with_the_keyboard(here: Visit) -> None:
    """From the answer to the slices, in the order of the page."""
    here.add(*FILES)
    study = find_studies(here)
    expect_picture(study, "Slice 4 of 10")
    study.get_by_role("button", name="Remove").focus()
    seen = []
    for _ in range(5):
        here.page.keyboard.press("Tab")
        seen.append(here.page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"))
    assert seen == [
        *("About this answer", "All 10 slices", "Slice that is shown", "Slice to look at first", "Heatmap"),
    ]
    study.get_by_role("slider").focus()
    here.page.keyboard.press("ArrowRight")
    expect_picture(study, "Slice 5 of 10")
    assert here.page.locator(":focus-visible").evaluate("one => getComputedStyle(one).outlineStyle") == "solid"


def test_a_study_waits_for_a_token(browser: Browser, study_models: Path, tmp_path: Path) -> None:
    """And is judged once there is one; its pictures are asked for with it, too."""
    tokens = write_tokens(tmp_path / "tokens", reader="roles=predict,read", looker="roles=read")
    with serve_page(study_models, "--tokens", str(tokens)) as url, visit(browser, url) as here:
        here.open()
        here.page.fill("#token", token_of("looker"))
        here.page.keyboard.press("Enter")
        expect(here.page.locator("#token-form")).to_be_hidden()
        here.add(*FILES)
        study = find_studies(here)
        expect(study.get_by_role("alert")).to_contain_text("[ROLE_MISSING]")
        expect(here.page.locator("#token")).to_be_focused()
        here.page.fill("#token", token_of("reader"))
        here.page.keyboard.press("Enter")
        expect(study.locator(".said .badge")).to_have_text("● stroke")
        expect_picture(study, "Slice 4 of 10")
