"""Connections of HTTP end when nothing comes of them, and make way for others in an order that is fair."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.admission.call import Call
from server.web import connection as bounds
from server.web import port as port_bounds
from server.web.connection import choose_least
from tests.certificates import HOSPITAL
from tests.fakes import wait_until
from tests.test_web_tls import Files, trust
from tests.test_web_work import Blocked, waiting
from tests.web_calls import WebServer, serve_web

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
SHORT = 0.2


@pytest.fixture
def impatient(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A server whose times are short."""
    monkeypatch.setattr(bounds, "IDLE_SECONDS", SHORT)
    monkeypatch.setattr(port_bounds, "WORK_SECONDS", SHORT)
    monkeypatch.setattr(port_bounds, "SWEEP_SECONDS", 0.02)
    monkeypatch.setattr("server.web.envelope.DISCARD_SECONDS", 0.1)
    monkeypatch.setattr(Call.take_message, "__defaults__", (SHORT,))
    with serve_web(tiny_models, tmp_path, max_wait_seconds=4 * SHORT) as server:
        yield server


def is_closed(plain: socket.socket) -> bool:
    """Whether the server has ended a connection on which nothing has come but answers."""
    try:
        while plain.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def ask(plain: socket.socket) -> bytes:
    """The answer to a request on it, in small letters."""
    plain.sendall(GET)
    found = b""
    while b"alive" not in found:
        found += plain.recv(65536).lower()
    return found


def is_alive(plain: socket.socket) -> bool:
    """Whether requests on it are answered."""
    return ask(plain).startswith(b"http/1.1 200")


@pytest.mark.parametrize(
    "first", [b"", b"GET / HT", GET, GET + b"GET / HT"], ids=["nothing", "head", "answered", "next"]
)
def test_connection_without_a_request_ends(impatient: WebServer, first: bytes) -> None:
    """Whatever it has begun with."""
    with impatient.dial() as plain:
        plain.sendall(first)
        started = time.monotonic()
        assert is_closed(plain)
        assert time.monotonic() - started > SHORT / 2


def test_body_that_comes_too_late_is_refused(impatient: WebServer) -> None:
    """408, and nothing more is waited for."""
    with impatient.dial() as plain:
        plain.sendall(POST + b"Content-Length: 100\r\n\r\nabc")
        found = plain.recv(65536)
        assert found.startswith(b"HTTP/1.1 408")
        assert b"MESSAGE_LATE" in found + plain.recv(65536)
        assert is_closed(plain)


def test_answer_that_is_not_taken_ends_the_connection(impatient: WebServer) -> None:
    """Though it was asked for."""
    with impatient.dial() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        plain.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        web = impatient.application._web
        assert web is not None
        wait_until(lambda: len(web._open) == 1)
        wait_until(lambda: not web._open)


def test_old_connection_ends_with_its_next_answer(tiny_models: Path, tmp_path: Path) -> None:
    """Which says so, so that nobody sends another request into its end: where certificates are looked at when it is
    made that must not have been long ago, and new servers get their share."""
    with serve_web(tiny_models, tmp_path, connection_age=600.0) as server, server.dial() as plain:
        web = server.application._web
        assert web is not None
        assert b"connection: close" not in ask(plain)
        (mine,) = web._open
        assert 500 < mine.ends_at - time.monotonic() <= 600
        mine.ends_at = time.monotonic()
        answer = ask(plain)
        assert answer.startswith(b"http/1.1 200")
        assert answer.count(b"connection: close") == 1
        assert is_closed(plain)


def make(address: str = "a", age: float = 10.0, **state: bool) -> Any:
    """A connection by what counts of it."""
    kept = {"waits_for_caller": True, "sends_on": False, "is_idle": True, **state}
    return SimpleNamespace(address=address, since=time.monotonic() - age, **kept)


def test_order_in_which_connections_make_way() -> None:
    """One of the address with most; one that sends on, then an idle one, then one that is waited for; the oldest."""
    served = make(age=99, waits_for_caller=False, is_idle=False)
    other = make("b", age=99)
    sends_on = make(age=0, sends_on=True, waits_for_caller=False, is_idle=False)
    idle, idler = make(age=5), make(age=9)
    slow = make(age=20, is_idle=False)
    fresh = make(age=0.5)
    left = [served, other, sends_on, idle, idler, slow, fresh]
    order = []
    while len(left) > 3:
        least = choose_least(left)
        order.append(least)
        left.remove(least)

    assert order == [sends_on, idler, idle, slow]
    assert choose_least([served]) is None
    assert choose_least([]) is None


def test_process_without_descriptors_goes_on_later(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says nothing of it in the log for each connection that comes."""
    monkeypatch.setattr(port_bounds, "RETRY_SECONDS", 0.01)
    with serve_web(tiny_models, tmp_path) as web:
        loop = web.application._loop
        assert loop is not None
        accept, fails = loop.sock_accept, iter([True] * 3)

        async def fail(listener: socket.socket) -> Any:
            if next(fails, False):
                raise OSError(24, "Too many open files")
            return await accept(listener)

        assert web.ask("GET", "/health/live").status == 200
        monkeypatch.setattr(loop, "sock_accept", fail)
        assert [web.ask("GET", "/health/live").status for _ in range(3)] == [200] * 3
        assert next(fails, None) is None


def test_another_connection_takes_the_place_of_an_idle_one(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the other is doing with it: here it has not even begun."""
    monkeypatch.setattr(port_bounds, "HTTP_CONNECTIONS", 2)
    with serve_web(tiny_models, tmp_path) as web, web.dial() as first, web.dial() as second:
        assert is_alive(second)
        with web.dial() as third:
            assert is_alive(third)
            assert is_closed(first)
            assert is_alive(second)


def test_work_that_is_under_way_makes_way_for_nobody(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other connection is closed without an answer, and may come again."""
    monkeypatch.setattr(port_bounds, "HTTP_CONNECTIONS", 1)
    with serve_web(tiny_models, tmp_path) as web:
        blocked = Blocked(monkeypatch)
        with waiting(web, blocked) as answers:
            with web.dial() as refused:
                assert is_closed(refused)
            with pytest.raises(OSError, match=r"reset|closed|Broken"):
                web.ask("GET", "/health/live")
        assert [answer.status for answer in answers] == [200]
        assert web.ask("GET", "/health/live").status == 200


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_place_of_somebody_who_does_not_shake_hands(
    seconds: float, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one like any other, also in the moment in which it comes; its socket is closed."""
    monkeypatch.setattr(port_bounds, "HTTP_CONNECTIONS", 1)
    files = Files(tmp_path)
    files.write(HOSPITAL, HOSPITAL)
    with serve_web(tiny_models, tmp_path, trust(HOSPITAL), **files.settings) as web, web.dial() as silent:
        silent.sendall(b"\x16")
        time.sleep(seconds)
        assert web.ask("GET", "/health/live").status == 200
        assert is_closed(silent)


def test_chunk_that_is_none_ends_a_body(impatient: WebServer) -> None:
    """Behind the answer there is no place for another: the connection ends. Before it there is."""
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    with impatient.dial() as plain:
        plain.sendall(head + b"zz\r\n")
        assert plain.recv(65536).startswith(b"HTTP/1.1 400")
        assert is_closed(plain)
    with impatient.dial() as plain:
        plain.sendall(head.replace(b"/predict", b"/nothing"))
        found = plain.recv(65536)
        assert found.startswith(b"HTTP/1.1 404")
        with suppress(OSError):
            plain.sendall(b"zz\r\n")
        assert is_closed(plain)
