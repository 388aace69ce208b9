"""The worklist's page in a real browser: for everybody, as it is now, and asking nobody else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from gateway.worklist.page import WorklistServer
from tests.web_browser import TIMEOUT, needs_browser, open_browser

pytestmark = needs_browser

RECORD: dict[str, Any] = {
    "urgency": "positive",
    "label": "stroke",
    "probability": 0.83,
    "threshold": 0.5,
    "reasons": [],
    "accession_number": "ACC1",
    "patient_id": "<img src=x onerror=alert(1)>",
    "study_date": "20261129",
    "study_time": "101500",
    "study_instance_uid": "1.2.1",
    "first_look": {"text": "series 2, image 6 (slice 6 of 6 from the feet)"},
    "model": "stroke-cnn",
    "version": "3",
    "judged_at": "2026-11-30T04:05:06+00:00",
}
NONE = {"urgency": "not-analysed", "label": None, "probability": None, "first_look": None}
NONE |= {"reasons": [{"reason": "NO_SERIES", "message": "there is no series of a head"}], "study_instance_uid": "1.2.2"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WorklistServer]:
    """The page of a queue with two studies, which looks again every second."""
    (tmp_path / "results").mkdir()
    add(tmp_path, RECORD)
    add(tmp_path, RECORD | NONE)
    with WorklistServer(tmp_path, ("127.0.0.1", 0), 1) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def add(queue: Path, record: dict[str, Any]) -> None:
    path = queue / "results" / f"{record['study_instance_uid']}.json"
    path.with_suffix(".part").write_text(json.dumps(record))
    path.with_suffix(".part").rename(path)


def open_page(browser: Browser, server: WorklistServer, seen: list[str], **options: Any) -> Page:
    """The page; ``seen`` gets what it asks for, and what the browser says against it."""
    page = browser.new_page(**options)
    page.set_default_timeout(TIMEOUT)
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(message.text))
    page.on("dialog", lambda dialog: seen.append(dialog.message))
    page.goto(server.url)
    return page


def list_rows(page: Page) -> list[list[str]]:
    cells = "row => [...row.children].map(cell => cell.innerText)"
    rows: list[list[str]] = page.locator("#rows tr").evaluate_all(f"rows => rows.map({cells})")
    return rows


def test_page_follows_the_queue_and_asks_nobody_else(browser: Browser, server: WorklistServer) -> None:
    """A study that comes is there without loading again, until one unticks that; markup of an archive is text."""
    seen: list[str] = []
    page = open_page(browser, server, seen)
    stroke = ["Positive", "stroke", "0.830", "ACC1", RECORD["patient_id"], "2026-11-29 10:15"]
    assert list_rows(page)[0][:6] == stroke
    assert list_rows(page)[1][:3] == ["Not analysed", "[NO_SERIES] there is no series of a head", ""]

    add(server.queue, RECORD | {"probability": 0.9, "study_instance_uid": "1.2.3"})
    expect(page.locator("#rows tr")).to_have_count(3)
    assert [row[2] for row in list_rows(page)] == ["0.900", "0.830", ""]
    expect(page.get_by_role("status")).to_have_text("2 positive, 1 not analysed, 0 below the threshold")
    assert set(seen) == {server.url}
    page.close()


def test_page_says_when_it_may_be_out_of_date(browser: Browser, server: WorklistServer) -> None:
    page = open_page(browser, server, [])
    (server.queue / "results").rename(server.queue / "elsewhere")
    expect(page.locator("#trouble")).to_contain_text("may be out of date")
    assert len(list_rows(page)) == 2

    (server.queue / "elsewhere").rename(server.queue / "results")
    expect(page.locator("#trouble")).to_be_empty()
    page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(browser: Browser, server: WorklistServer, scheme: Any, width: int) -> None:
    """And on a telephone nothing but the table scrolls sideways."""
    page = open_page(browser, server, [], color_scheme=scheme, viewport={"width": width, "height": 800})
    found = Axe().run(page).response["violations"]

    assert [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
