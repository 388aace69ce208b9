"""Studies over HTTP that are long, large, slow or given up: they take little memory, and as long as they get on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from server.admission.inbox import Inbox
from tests.fakes import wait_until, write_model
from tests.studies import STUDY_SPEC, make_series
from tests.web_calls import BOUNDARY, FORM, WebServer, make_form, serve_web

HEAD = f"POST /study HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
END = f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    root = tmp_path_factory.mktemp("models")
    write_model(root, STUDY_SPEC)
    with serve_web(root, tmp_path_factory.mktemp("web"), stream_idle_seconds=0.5) as server:
        yield server


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def make_part(file: bytes) -> bytes:
    """A part of a form, with the beginning of the mark behind it that shows that it is complete."""
    return make_form(("file", file)).removesuffix(END)


def find_connection(web: WebServer) -> Any:
    """The only one that is open."""
    assert web.application._web is not None
    wait_until(lambda: web.application._web is not None and len(web.application._web._open) == 1)
    (found,) = web.application._web._open
    return found


def test_files_are_let_go_once_they_are_judged(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB in 40 files: what is held of them at a time is a part of what messages may take."""
    seen: list[int] = []
    receive = Inbox.receive

    async def watch(inbox: Inbox, *arguments: Any, **options: Any) -> Any:
        held = await receive(inbox, *arguments, **options)
        seen.append(inbox._held)
        return held

    monkeypatch.setattr(Inbox, "receive", watch)
    files = [file + bytes(500_000) for file in make_series(40)]
    answer = web.post_form("/study", *[("file", file) for file in files])

    assert answer.status == 200
    assert len(seen) == len(files) + 1
    assert max(seen) < 12_000_000
    inbox = web.application._core.inbox
    assert (inbox._held, inbox._free) == (0, inbox._total)


def test_a_study_that_gets_on_has_time(web: WebServer) -> None:
    """Each file that comes gives its connection as much as a new request has."""
    first, second, *rest = map(make_part, make_series(8))
    with web.dial() as plain:
        plain.sendall(HEAD + chunk(first + b"--"))
        connection = find_connection(web)
        connection.since = long_ago = time.monotonic() - 50
        plain.sendall(chunk(second[2:] + b"--"))
        wait_until(lambda: connection.since > long_ago + 25)
        plain.sendall(chunk(b"".join(rest)[2:] + END) + b"0\r\n\r\n")
        assert plain.recv(100).startswith(b"HTTP/1.1 200")


def test_a_study_on_which_nothing_comes_ends(web: WebServer) -> None:
    """408, and its place is free."""
    with web.dial() as plain:
        plain.sendall(HEAD + chunk(make_part(make_series(1)[0]) + b"--"))
        found = b""
        while b"STREAM_IDLE" not in found:
            found += plain.recv(65536)
        assert found.startswith(b"HTTP/1.1 408")
    wait_until(lambda: web.application._core.boundary.in_flight == 0)


def test_a_caller_who_has_gone_is_not_worked_for(web: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """The study ends where it is, and what had come of it is not taken for all; what was held of it is given back."""
    caplog.set_level("INFO")
    plain = socket.create_connection(("127.0.0.1", web.port))
    plain.sendall(HEAD + chunk(b"".join(map(make_part, make_series(3)))))
    wait_until(lambda: web.application._core.boundary.in_flight == 1)
    plain.close()
    wait_until(lambda: web.application._core.boundary.in_flight == 0)

    inbox = web.application._core.inbox
    wait_until(lambda: inbox._held == 0)
    wait_until(lambda: "POST /study id=" in caplog.text)
    assert "code=CANCELLED" in caplog.text
    assert "INTERNAL" not in caplog.text


@pytest.mark.parametrize(
    "junk",
    [
        b"".join(make_part(b"") for _ in range(7000)),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\n'.encode()
        + f"\r\n--{BOUNDARY}!".encode() * 9000,
        b"".join(make_form(("slice_id", "x")).removesuffix(END) for _ in range(9000)),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; x={"a" * 65536}\r\n\r\n'.encode(),
        bytes(70_000),
    ],
    ids=["many files", "ends that are none", "ids without files", "long head", "no form"],
)
def test_forms_that_nobody_should_write_end_soon(web: WebServer, junk: bytes) -> None:
    """Refused; the next study is judged."""
    started = time.process_time()
    assert web.ask("POST", "/study", junk, content_type=FORM).status in (400, 413)
    assert time.process_time() - started < 5
    assert web.post_form("/study", *[("file", file) for file in make_series(8)]).status == 200
