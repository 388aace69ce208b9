"""The worklist's page in a real browser: for everybody, as it is now, asking nobody else, and with a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.access import token_of, write_tokens
from tests.test_web_worklist import MARKUP, NONE, STUDY, describe, put
from tests.web_browser import Visit, needs_browser, open_browser, serve_page, visit

pytestmark = needs_browser

WIDE = STUDY | {"patient_id": MARKUP, "study_instance_uid": "1.2." + "9" * 60, "look_first_at": "word " * 30}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worklist") / "worklist.json"


@pytest.fixture(scope="module")
def url(tiny_models: Path, place: Path) -> Iterator[str]:
    with serve_page(tiny_models, "--worklist", str(place)) as address:
        yield address


@pytest.fixture(scope="module")
def guarded_url(tiny_models: Path, place: Path) -> Iterator[str]:
    tokens = write_tokens(place.with_name("tokens"), board="roles=worklist", ward="")
    with serve_page(tiny_models, "--worklist", str(place), "--tokens", str(tokens)) as address:
        yield address


@pytest.fixture(autouse=True)
def usual(place: Path) -> None:
    put(place, describe(STUDY, NONE))


def list_tables(here: Visit) -> list[list[str]]:
    """The first cells of each study."""
    cells = "row => [...row.children].slice(0, 5).map(cell => cell.innerText)"
    rows: list[list[str]] = here.page.locator("tbody tr").evaluate_all(f"rows => rows.map({cells})")
    return rows


def find_violations(here: Visit) -> list[str]:
    found = Axe().run(here.page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


def test_page_looks_again_without_script(browser: Browser, url: str, place: Path) -> None:
    """By itself, until one stops that by a link."""
    with visit(browser, f"{url}worklist", java_script_enabled=False) as here:
        here.page.goto(f"{here.url}?refresh=1")
        assert here.page.locator("tbody tr").count() == 2
        put(place, describe(STUDY, STUDY | {"study_instance_uid": "1.2.3"}, NONE))
        expect(here.page.locator("tbody tr")).to_have_count(3)

        here.page.get_by_role("link", name="Stop that").click()
        expect(here.page.get_by_text("Does not look again by itself.")).to_be_visible()


def test_page_shows_studies_under_headings(browser: Browser, url: str, place: Path) -> None:
    """Each table has the name of its heading, and each row that of its study; markup of an archive is text."""
    put(place, describe(WIDE, NONE))
    with visit(browser, f"{url}worklist") as here:
        here.page.goto(here.url)

        assert here.page.get_by_role("heading").all_inner_texts() == [
            *("Worklist", "Positive (1)", "Not analysed (1)", "Below the threshold (0)")
        ]
        assert list_tables(here)[0][:2] == ["ACC1", MARKUP]
        assert list_tables(here)[1][3] == "[NO_HEAD] no head"
        row = here.page.get_by_role("table", name="Not analysed (1)").get_by_role("rowheader")
        expect(row).to_have_text("ACC1")
        assert here.requests == [f"GET {here.url}"]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(browser: Browser, url: str, guarded_url: str, place: Path, scheme: Any, width: int) -> None:
    """With studies, out of date, without a list, and where a token is asked for; and on a telephone nothing but the
    tables scrolls sideways."""
    options: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with visit(browser, f"{url}worklist", **options) as here:
        for content in (describe(WIDE, NONE), describe(WIDE, age=900), b"{"):
            put(place, content)
            here.page.goto(here.url)
            assert find_violations(here) == []
            assert here.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    with visit(browser, f"{guarded_url}worklist", **options) as here:
        here.page.goto(here.url)
        assert find_violations(here) == []


def test_page_with_a_token_follows_the_list(browser: Browser, guarded_url: str, place: Path) -> None:
    """It says when one is not the right one, and looks again with it until one stops that; nothing is kept of it."""
    with visit(browser, f"{guarded_url}worklist") as here:
        page = here.page
        page.goto(f"{here.url}?refresh=1")
        page.get_by_label("Token").fill("guessed")
        page.get_by_role("button").click()
        expect(page.get_by_text("The server does not know this token.")).to_be_visible()
        expect(page.get_by_label("Token")).to_be_focused()
        page.get_by_label("Token").fill(token_of("ward"))
        page.keyboard.press("Enter")
        expect(page.get_by_text("it lacks the role 'worklist'")).to_be_visible()

        page.get_by_label("Token").fill(token_of("board"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Worklist")).to_be_focused()
        expect(page.get_by_label("Token")).to_have_count(0)
        assert list_tables(here)[0][:2] == ["ACC1", "MRN1"]

        put(place, describe(STUDY, STUDY | {"study_instance_uid": "1.2.3"}, NONE))
        expect(page.locator("tbody tr")).to_have_count(3)
        expect(page.get_by_role("status")).to_contain_text("2 positive, 1 not analysed")
        page.get_by_role("link", name="Stop that").click()
        expect(page.get_by_role("link", name="Look again")).to_be_focused()
        assert page.url == f"{here.url}?refresh=1"
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_page_with_a_token_says_when_the_server_is_away(browser: Browser, guarded_url: str) -> None:
    with visit(browser, f"{guarded_url}worklist") as here:
        page = here.page
        page.goto(here.url)
        page.route("**/worklist*", lambda route: route.abort())
        page.get_by_label("Token").fill(token_of("board"))
        page.keyboard.press("Enter")

        expect(page.get_by_text("The server does not answer")).to_be_visible()
