"""Work that HTTP asks for: whose caller has gone, that waits too long, and that is under way when the server stops."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from server.core import detector
from server.errors import UnavailableError
from tests.fakes import encode, make_slice, wait_until
from tests.web_calls import TIMEOUT, Answer, WebServer, read_answer, serve_web

IMAGE = encode(make_slice(200))


class Blocked:
    """A server with one worker, which stops before it decodes its first image until it is released."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.held, self.release = threading.Event(), threading.Event()
        self.judged = 0
        decode = detector.load_pixels

        def wait(*arguments: Any, **options: Any) -> Any:
            self.judged += 1
            self.held.set()
            assert self.release.wait(TIMEOUT)
            return decode(*arguments, **options)

        patch.setattr(detector, "load_pixels", wait)


@contextmanager
def waiting(web: WebServer, blocked: Blocked) -> Iterator[list[Answer]]:
    """A request that is in work until the end of the block, and then its answer."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(web.post_image(IMAGE, "?id=first")))
    thread.start()
    assert blocked.held.wait(TIMEOUT)
    yield answers
    blocked.release.set()
    thread.join()


def test_caller_who_has_gone_is_not_worked_for(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An image that still waits for its turn is dropped, and the log says CANCELLED."""
    caplog.set_level(logging.INFO, "server.core.outcomes")
    with serve_web(tiny_models, tmp_path, workers=1) as web:
        blocked = Blocked(monkeypatch)
        boundary = web.application._core.boundary
        with waiting(web, blocked):
            with web.dial() as gone:
                gone.sendall(make_post(IMAGE, "gone"))
                wait_until(lambda: boundary.in_flight == 2)
                time.sleep(0.05)  # its body has come, too
            wait_until(lambda: boundary.in_flight == 1)
        assert web.post_image(IMAGE).status == 200

    assert blocked.judged == 2
    assert [line for line in caplog.messages if "id=gone" in line and "code=CANCELLED" in line]


def make_post(image: bytes, request_id: str) -> bytes:
    head = (
        f"POST /predict?id={request_id} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(image)}"
    )
    return f"{head}\r\n\r\n".encode() + image


def test_full_queue_says_when_to_come_again(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whole seconds for HTTP, in milliseconds for those who can read them."""
    with serve_web(tiny_models, tmp_path, workers=1, queue=0, max_wait_seconds=0.2) as web:
        blocked = Blocked(monkeypatch)
        with waiting(web, blocked):
            answer = web.post_image(IMAGE)

    assert answer.outcome == (503, "QUEUE_FULL")
    assert answer.json["retry_after_ms"] > 0
    assert int(answer.headers["retry-after"]) >= 1


def test_image_waits_for_its_turn_only_so_long(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, or one of several."""
    with serve_web(tiny_models, tmp_path, workers=1, max_wait_seconds=0.2) as web:
        blocked = Blocked(monkeypatch)
        with waiting(web, blocked):
            alone = web.post_image(IMAGE)
            several = web.post_form("/predict/batch", ("file", IMAGE), ("file", IMAGE))

    assert alone.outcome == (504, "DEADLINE_IN_QUEUE")
    assert [one["error"]["reason"] for one in several.json["results"]] == ["DEADLINE_IN_QUEUE"] * 2


def test_stop_finishes_what_is_in_flight(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered, and what comes just after the stop; idle connections are closed, and the port is free."""
    with serve_web(tiny_models, tmp_path, workers=1) as web:
        blocked = Blocked(monkeypatch)
        idle = web.connect()
        idle.request("GET", "/health/live")
        read_answer(idle)
        with waiting(web, blocked) as first:
            web.application.stop()
            wait_until(lambda: not web.application._health.is_serving)
            assert web.ask("GET", "/health/ready").status == 503
            late: list[Answer] = []
            thread = threading.Thread(target=lambda: late.append(web.post_image(IMAGE)))
            thread.start()
            wait_until(lambda: web.application._core.boundary.in_flight == 2)
            wait_until(lambda: not can_connect(web.port))
        thread.join()
        web.thread.join()

    assert [answer.status for answer in (*first, *late)] == [200, 200]
    assert idle.sock.recv(1) == b""
    idle.close()
    socket.create_server(("127.0.0.1", web.port)).close()


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT).close()
    except OSError:
        return False
    return True


def test_stop_cuts_off_what_does_not_end(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for it, and nobody waits for a body that does not come."""
    with serve_web(tiny_models, tmp_path, drain_seconds=0.3) as web, web.dial() as slow:
        slow.sendall(make_post(IMAGE, "slow")[:-1])
        wait_until(lambda: web.application._core.boundary.in_flight == 1)
        web.application.stop()
        web.thread.join(TIMEOUT)
        assert not web.thread.is_alive()
        with suppress(ConnectionResetError):
            assert slow.recv(1) == b""


def test_audit_log_that_cannot_be_written_stops_images_alone(tiny_models: Path, tmp_path: Path) -> None:
    """Where it is required."""
    (tmp_path / "audit").mkdir()
    settings: dict[str, Any] = {"audit": tmp_path / "audit" / "log", "audit_required": True}
    with serve_web(tiny_models, tmp_path, **settings) as web:
        assert web.post_image(IMAGE).status == 200
        web.application._core.detector._check_ready = fail_audit
        assert web.post_image(IMAGE).outcome == (503, "AUDIT_UNAVAILABLE")
        assert web.ask("GET", "/models").status == 200


def fail_audit() -> None:
    raise UnavailableError("AUDIT_UNAVAILABLE", "The audit log cannot be written.", retry_after=1)
