"""A server that is away for a while: both clients use the caller's time, and no more than that."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest

from client import (
    AsyncStrokeClient,
    ClientClosedError,
    DeadlineExceededError,
    RetryConfig,
    ServerUnavailableError,
    StrokeClient,
    StrokeClientError,
)
from client._retry import Retry
from client.cli.terminal import WaitNotice, notice_on
from tests.client_fakes import FakeServer, RefusalError, make_response, serve, wait_for
from tests.client_kinds import KINDS, ClientKind, make_images
from tests.wire import open_wire

GAP_SECONDS = 2.5
"""More than five quick tries take; restarts take longer, but tests need not."""


@contextmanager
def away(server: FakeServer, seconds: float = GAP_SECONDS) -> Iterator[None]:
    """Takes the server away; another comes back on its port ``seconds`` later and stays for as long as the block."""
    server.stop()
    over = threading.Event()

    def come_back() -> None:
        time.sleep(seconds)
        with serve(port=server.port):
            over.wait(30)

    thread = threading.Thread(target=come_back)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_call_waits_for_the_server_to_come_back(server: FakeServer, either: ClientKind) -> None:
    """A client that is made while nobody listens uses its caller's time."""
    with away(server):
        assert either.call("predict", b"stroke", timeout=10).label == "stroke"


def test_client_that_knew_the_server_waits_for_it(server: FakeServer) -> None:
    """The connection that broke is no obstacle."""
    with StrokeClient(server.target) as client:
        client.predict(b"stroke")
        with away(server):
            assert client.predict(b"stroke", timeout=10).label == "stroke"


def test_run_waits_for_the_server_to_come_back(server: FakeServer, either: ClientKind) -> None:
    """So does a stream, from its first image on."""
    with away(server):
        assert len(either.predict_many(make_images(20), timeout=10)) == 20


@pytest.mark.parametrize("reason", ["SERVER_STARTING", "SERVER_STOPPING"])
def test_server_that_starts_or_stops_is_waited_for(server: FakeServer, either: ClientKind, reason: str) -> None:
    """It says so with UNAVAILABLE, for longer than a few tries take."""
    ready_at = time.monotonic() + GAP_SECONDS

    def judge(request):
        if time.monotonic() < ready_at:
            raise RefusalError(grpc.StatusCode.UNAVAILABLE, reason, "Come again.", 100)
        return make_response(request)

    server.servicer.judge = judge

    assert either.call("predict", b"stroke").label == "stroke"
    ready_at = time.monotonic() + GAP_SECONDS
    assert [result.label for result in either.predict_many([b"stroke"])] == ["stroke"]


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_there_is_said_when_the_time_is_over(kind: str) -> None:
    """The error names the cause, as it would after the first try, and not merely that time is over."""
    started = time.monotonic()
    with pytest.raises(ServerUnavailableError, match="is it running") as caught:
        KINDS[kind]("127.0.0.1:1", timeout=1.5).call("predict", b"stroke")

    assert caught.value.reason == "SERVER_UNREACHABLE"
    assert 1.2 < time.monotonic() - started < 20


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_host_fails_at_once(kind: str) -> None:
    """A name that nobody knows is not waited for."""
    started = time.monotonic()
    with pytest.raises(ServerUnavailableError) as caught:
        KINDS[kind]("no-such-host.invalid:50051", timeout=20).call("predict", b"stroke")

    assert caught.value.reason == "HOST_UNKNOWN"
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT", "INTERNAL"])
def test_what_waiting_does_not_change_fails_at_once(server: FakeServer, kind: str, code: str) -> None:
    """An answer is an answer, even with a hint."""

    def judge(request):
        raise RefusalError(grpc.StatusCode[code], "REASON", "m", 10)

    server.servicer.judge = judge
    with pytest.raises(StrokeClientError):
        KINDS[kind](server.target).call("predict", b"stroke")

    assert len(server.servicer.requests) == 1


def test_health_is_asked_once(either: ClientKind) -> None:
    """check_health() tells how things are, not how they may be later."""
    either.target = "127.0.0.1:1"
    started = time.monotonic()

    with pytest.raises(ServerUnavailableError):
        either.call("check_health", timeout=60)

    assert time.monotonic() - started < 20


def test_connection_that_is_dropped_each_time_is_given_up() -> None:
    """What takes connections and drops them is no StrokeServe: that does not take the whole time."""
    failure = ServerUnavailableError("it does not connect", "CONNECTION_FAILED", "UNAVAILABLE")
    retry = Retry(RetryConfig(), 0.0, 600.0)

    pauses = [retry.judge(failure, 0.0) for _ in range(4)]

    assert None not in pauses[:3]
    assert pauses[3] is None


def test_late_try_does_not_hide_what_was_waited_for() -> None:
    """A try that began in the second half and found no answer leaves the refusal as the error; an early one not."""
    refusal = ServerUnavailableError("it stops", "SERVER_STOPPING", "UNAVAILABLE")
    silence = DeadlineExceededError("no answer", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    for refused_at, expected in ((1.0, silence), (8.0, refusal)):
        retry = Retry(RetryConfig(), 0.0, 10.0)
        assert retry.judge(refusal, refused_at) is not None
        assert retry.judge(silence, 10.0) is None
        assert retry.failure is expected


def test_closing_the_client_ends_the_wait() -> None:
    """A call that waits for a server ends at once when its client is closed, with an error that says so."""
    client = StrokeClient("127.0.0.1:1", timeout=60)
    waiting = threading.Event()
    client.note_wait = lambda failure: waiting.set()
    caught: list[Exception] = []

    def call(method: Callable[[], object]) -> None:
        try:
            method()
        except Exception as error:
            caught.append(error)

    calls = (lambda: client.predict(b"stroke"), lambda: list(client.predict_many([b"stroke"])))
    threads = [threading.Thread(target=call, args=(method,)) for method in calls]
    for thread in threads:
        thread.start()
    assert waiting.wait(20)
    wait_for(lambda: all(thread.is_alive() for thread in threads))
    started = time.monotonic()
    client.close()
    for thread in threads:
        thread.join(20)

    assert time.monotonic() - started < 20
    assert [type(error) for error in caught] == [ClientClosedError] * 2


def test_closing_the_asynchronous_client_ends_the_wait() -> None:
    """So it is in an event loop."""

    async def run() -> float:
        client = AsyncStrokeClient("127.0.0.1:1", timeout=60)

        async def stream() -> list:
            return [result async for result in client.predict_many([b"stroke"])]

        tasks = [asyncio.create_task(client.predict(b"stroke")), asyncio.create_task(stream())]
        await asyncio.sleep(0.5)
        started = time.monotonic()
        await client.close()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ClientClosedError] * 2
        return time.monotonic() - started

    assert asyncio.run(run()) < 20


def test_cancelled_task_does_not_wait() -> None:
    """Cancellation reaches a call between two tries."""

    async def run() -> float:
        async with AsyncStrokeClient("127.0.0.1:1", timeout=60) as client:
            task = asyncio.create_task(client.predict(b"stroke"))
            await asyncio.sleep(0.5)
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.monotonic() - started

    assert asyncio.run(run()) < 20


def test_ctrl_c_does_not_wait() -> None:
    """KeyboardInterrupt comes between two tries, too."""
    with StrokeClient("127.0.0.1:1", timeout=60) as client:
        timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            client.predict(b"stroke")

    assert time.monotonic() - started < 20


def test_each_client_has_a_connection_of_its_own(server: FakeServer) -> None:
    """Clients of one process share neither a limit of calls at a time nor the pause before connecting again."""
    with open_wire(server.port) as wire, StrokeClient(wire.target) as first, StrokeClient(wire.target) as second:
        first.predict(b"stroke")
        second.predict(b"stroke")

        assert wire.connections == 2


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_people_are_told_whom_they_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, once a wait, when it takes longer than a moment; nothing is said where nobody is watching."""
    monkeypatch.setenv("TERM", "xterm")
    now = [100.0]
    monkeypatch.setattr("client.cli.terminal.time.monotonic", lambda: now[0])
    terminal = FakeTerminal()
    notice = notice_on(terminal, "box:50051")
    assert isinstance(notice, WaitNotice)
    failure = ServerUnavailableError("no server answers", "SERVER_UNREACHABLE", "UNAVAILABLE")

    for now[0] in (100.0, 100.5):
        notice(failure)
    assert terminal.getvalue() == ""
    for now[0] in (101.5, 103.0):
        notice(failure)

    assert terminal.getvalue() == "\r\x1b[2Kwaiting for the server at box:50051: no server answers\n"
    assert notice_on(io.StringIO(), "box:50051") is None
