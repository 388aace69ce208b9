"""The page of Orthanc's plugin in a real browser: for everybody, and asking nobody else."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from tests.orthanc_fake import PLUGIN, STUDY, Site
from tests.web_browser import needs_browser, open_browser

pytestmark = needs_browser

ADDRESS = "http://archive.test/strokeserve/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(PLUGIN)
    return Site(importlib.import_module("strokeserve_page"))


def open_page(browser: Browser, site: Site, seen: list[str], **options: Any) -> Page:
    """The page, whose every request is answered by the plugin's own function."""

    def answer(route: Route) -> None:
        request = route.request
        seen.append(f"{request.method} {request.url}")
        path = urlsplit(request.url).path.removeprefix("/strokeserve").strip("/")
        found = site.ask(path, request.method, headers=request.headers, body=request.post_data_buffer or b"")
        if found.status == 303:  # which a browser that is answered here does not follow
            found = site.ask("index.html")
        route.fulfill(status=found.status, headers=found.headers, content_type=found.kind, body=found.body)

    page = browser.new_page(**options)
    page.route("**/*", answer)
    page.goto(f"{ADDRESS}index.html")
    return page


def test_button_is_pressed_and_nobody_else_is_asked(browser: Browser, site: Site) -> None:
    """The page's own policy lets its form go where it should; markup of an archive is text."""
    seen: list[str] = []
    page = open_page(browser, site, seen)
    expect(page.get_by_role("status")).to_have_text("1 study")
    assert page.locator("#rows td").nth(3).inner_text().startswith('"><script>')

    page.get_by_role("button").click()
    expect(page.get_by_role("status")).to_have_text("1 study")

    assert site.worker.asked == [STUDY]
    assert set(seen) == {f"GET {ADDRESS}index.html", f"POST {ADDRESS}studies/{STUDY}/ask"}
    page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(browser: Browser, site: Site, scheme: Any, width: int) -> None:
    """And on a telephone nothing but the table scrolls sideways."""
    page = open_page(browser, site, [], color_scheme=scheme, viewport={"width": width, "height": 800})
    found = Axe().run(page).response["violations"]

    assert [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
