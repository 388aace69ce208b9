"""The worklist as a page on this machine: drawn anew for every request, with nothing that comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import ipaddress
import re
import socket
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from gateway.results.urgency import Urgency
from gateway.worklist.order import Entry, Worklist, WorklistError, read_worklist
from server.process.console import complain, say

PAGE = Path(__file__).with_name("page.html")
PATIENCE_SECONDS = 10
"""How long a browser may take to say what it wants."""

_NAMES = {Urgency.POSITIVE: "Positive", Urgency.NOT_ANALYSED: "Not analysed", Urgency.REST: "Below the threshold"}
_HOST_NAMES = ("localhost", "127.0.0.1", "::1")


def find_address(text: str) -> tuple[str, int]:
    """Reads an address of this machine.

    Raises:
        ValueError: it is none, or one that other machines reach: the page names studies, and asks nobody who he is.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ValueError(f"--http must be an address and a port, such as 127.0.0.1:8090, got {text!r}") from None
    if port is None or parts.netloc != text or "@" in text:
        raise ValueError(f"--http must be an address and a port, such as 127.0.0.1:8090, got {text!r}")
    if not address.is_loopback:
        raise ValueError(f"--http must be an address of this machine alone, such as 127.0.0.1:8090, got {text!r}")
    return str(address), port


def render_page(worklist: Worklist, refresh: int, now: datetime) -> bytes:
    """The page in UTF-8; whatever the archive has written is text in it."""
    counts = ", ".join(f"{worklist.count(one)} {_NAMES[one].lower()}" for one in Urgency)
    unreadable = len(worklist.unreadable)
    if unreadable:
        counts += f"; {unreadable} {'files' if unreadable > 1 else 'file'} could not be read"
    texts = {
        "REFRESH": str(refresh),
        "COUNTS": counts,
        "TIME": now.strftime("%H:%M:%S"),
        "ROWS": "\n".join(map(render_row, worklist.entries)),
    }
    page = PAGE.read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: texts[found[1]], page).encode("utf-8", "replace")


def render_row(entry: Entry) -> str:
    """A study as a row of the table."""
    cells = entry.cells
    probability = "" if entry.probability is None else f"{entry.probability:.3f}"
    label = cells["label"] or cells["reasons"]
    day = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", cells["study_date"])
    hour = re.sub(r"^(\d\d)(\d\d).*", r"\1:\2", cells["study_time"])
    texts = (
        label,
        probability,
        cells["accession_number"],
        cells["patient_id"],
        f"{day} {hour}",
        cells["look_first_at"],
    )
    first = f'<th scope="row" class="{entry.urgency}">{_NAMES[entry.urgency]}</th>'
    return f"<tr>{first}{''.join(f'<td>{html.escape(text)}</td>' for text in (*texts, cells['model']))}</tr>"


def make_policy(page: bytes) -> str:
    """A policy (Content Security Policy, level 3) under which a browser runs the page's own elements alone."""
    scripts, styles = (
        " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(body).digest()).decode()}'"
            for body in re.findall(rb"<%b[^>]*>(.*?)</%b>" % (name, name), page, re.DOTALL)
        )
        for name in (b"script", b"style")
    )
    return (
        f"default-src 'none'; connect-src 'self'; script-src {scripts}; style-src {styles}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class WorklistServer(ThreadingHTTPServer):
    """Serves the page of a queue."""

    daemon_threads = True

    def __init__(self, queue: Path, address: tuple[str, int], refresh: int) -> None:
        self.queue, self.refresh = queue, refresh
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, PageHandler)

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}/" if ":" in str(host) else f"http://{host!s}:{port}/"


class PageHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: WorklistServer
    timeout = PATIENCE_SECONDS

    def do_GET(self) -> None:
        """Answers with the page."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in _HOST_NAMES:  # the page of another site that has had its name point here
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self.send_page()

    def send_page(self) -> None:
        """Sends the page as it is now."""
        try:
            worklist = read_worklist(self.server.queue)
        except WorklistError:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "The queue cannot be read")
            return
        page = render_page(worklist, self.server.refresh, datetime.now().astimezone())
        self.send_response(HTTPStatus.OK)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(page)))
        self.send_header("content-security-policy", make_policy(page))
        self.send_header("x-content-type-options", "nosniff")
        self.send_header("referrer-policy", "no-referrer")
        self.send_header("cache-control", "no-store")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *values: object) -> None:
        """Writes nothing: a request may hold anything."""

    def version_string(self) -> str:
        """Names no versions."""
        return "StrokeServe"


def serve_page(queue: Path, text: str, refresh: int) -> int:
    """Serves the page until it is interrupted. Returns the exit code."""
    try:
        server = WorklistServer(queue, find_address(text), refresh)
    except OSError as error:
        complain(f"gateway worklist: error: {text}: {error.strerror}")
        return 1
    with server:
        say(f"worklist on {server.url}")
        server.serve_forever()
    return 0
