"""The page in a real browser, for tests: Debian's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Page, Route, expect, sync_playwright

from tests.fakes import run_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium here: the page is not tried in a browser")

TIMEOUT = 30_000
"""Milliseconds that anything may take on a machine with much else to do."""

REFUSAL_NOTE = "Failed to load resource"
"""How the browser's console notes an answer of 400 and above, and a connection that is none: no fault of the page."""

ADDRESS = "  HTTP on "
"""How the line begins in which a server says where it speaks HTTP."""

Upload = tuple[str, bytes]
"""Name and bytes of a file."""


@contextmanager
def serve_page(models: Path, *flags: str) -> Iterator[str]:
    """A server that has the page; gives its address, with a slash at the end."""
    with run_server(models, "--http", "127.0.0.1:0", *flags) as server:
        assert server.process.stdout is not None
        yield next(line for line in server.process.stdout if line.startswith(ADDRESS)).removeprefix(ADDRESS).strip()


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser for the tests of a module. Not for longer: meanwhile no other test can have an event loop here."""
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        # Root may not have a sandbox, and a processor that plays a graphics card costs more than it gives.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """One page of its own, and what it did."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    """Methods and addresses of what it asked for."""

    complaints: list[str] = field(default_factory=list)
    """What the browser's console said, breaches of the policy among it, dialogs, and exceptions of the script."""

    def open(self) -> None:
        """Loads the page, to the point where it knows the models."""
        self.page.goto(self.url)
        expect(self.page.locator("#model-text")).not_to_have_text("Asking the server …")

    def add(self, *uploads: Upload, wait: bool = True) -> None:
        """Chooses files, and waits for the end of judging."""
        files = [{"name": name, "mimeType": "", "buffer": data} for name, data in uploads]
        self.page.set_input_files("#files", files)  # type: ignore[arg-type]
        if wait:
            self.wait()

    def wait(self) -> None:
        """Waits until nothing is being looked at or judged."""
        expect(self.page.locator("#main")).not_to_have_attribute("aria-busy", "true")
        expect(self.page.locator(".study progress:visible")).to_have_count(0)
        expect(self.page.locator("#progress-area")).to_be_hidden()

    def drop(self, *paths: Path) -> None:
        """Drops files and folders, as a file manager does, and waits for the end of judging."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 300, "data": data})
        expect(self.page.locator("tbody, .study").first).to_be_visible()
        self.wait()

    def rows(self) -> list[list[str]]:
        """The table as people see it: name, answer, P, confidence, notes, model of each row that is shown."""
        cells = "row => [row.querySelector('.name'), ...row.querySelectorAll('td')].map(cell => cell.innerText.trim())"
        return self.page.locator("tbody:not([hidden]) > tr:first-child").evaluate_all(f"rows => rows.map({cells})")

    def column(self, number: int) -> list[str]:
        return [row[number] for row in self.rows()]

    def text(self, name: str) -> str:
        """The text of an element by its id."""
        return self.page.locator(f"#{name}").inner_text()

    def asked(self, path: str) -> int:
        """How often it asked for a path."""
        return sum(f"/{path}" in request for request in self.requests)

    def focused(self) -> str:
        """What the keyboard is on: id, or text."""
        element = "document.activeElement.id || document.activeElement.textContent"
        return str(self.page.evaluate(element))

    def answer(self, path: str, *answers: Any) -> None:
        """Answers requests for a path in place of the server, one after the other, the last one from then on; None is
        a connection that is none."""
        left = list(answers)

        def handle(route: Route) -> None:
            answer = left.pop(0) if len(left) > 1 else left[0]
            route.abort() if answer is None else route.fulfill(**answer)

        self.page.route(f"**/{path}", handle)

    def judge_as(self, answer: dict[str, Any]) -> None:
        """Has images judged so in place of the server, each with its digest."""

        def handle(route: Route) -> None:
            (digest,) = parse_qs(urlsplit(route.request.url).query)["image_sha256"]
            route.fulfill(json={**answer, "image_sha256": digest})

        self.page.route("**/predict?*", handle)


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """A visit that may ask nobody but the server, breach no policy and raise nothing."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    here = Visit(page, url)
    page.on("request", lambda request: here.requests.append(f"{request.method} {request.url}"))
    page.on("console", lambda message: here.complaints.append(message.text))
    page.on("pageerror", lambda error: here.complaints.append(str(error)))

    def refuse(dialog: Dialog) -> None:
        here.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", refuse)
    yield here
    context.close()
    own = (f"GET {url}", f"POST {url}", f"GET blob:{url}")
    assert [request for request in here.requests if not request.startswith(own)] == []
    assert [text for text in here.complaints if REFUSAL_NOTE not in text] == []


def problem(
    status: int, reason: str, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """A refusal as the server sends it, for ``Visit.answer``."""
    body = {"type": "about:blank", "title": "", "status": status, "detail": detail, "reason": reason, **more}
    kind = "application/problem+json"
    return {"status": status, "json": body, "headers": {"Content-Type": kind, **(headers or {})}}


def numbered(images: Sequence[bytes], count: int) -> list[Upload]:
    """So many files, from a few images: slice-1.png and so on."""
    return [(f"slice-{number + 1}.png", images[number % len(images)]) for number in range(count)]
