"""Refusals of a busy server: both clients come again when it said, within the caller's time, and not all at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import grpc
import pytest

from client import AsyncStrokeClient, ImageTooLargeError, OverloadedError, Prediction, RetryConfig, StrokeClient
from client._config import RetryConfig as Config
from client._retry import Retry, choose_pause, is_repeatable
from tests.client_fakes import FakeServer, RefusalError, make_response, serve
from tests.client_kinds import ClientKind, expect_labels, make_images

BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED


def refuse(times: int, hint: int | str | None = 20, code: grpc.StatusCode = BUSY) -> Callable:
    """A ``judge`` that refuses the first requests, with a hint."""
    left = [None] * times

    def judge(request):
        if left:
            left.pop()
            raise RefusalError(code, "QUEUE_FULL", "The queue is full.", hint)
        return make_response(request)

    return judge


class SmallServer:
    """A ``judge`` with a queue of so many places, which one worker empties."""

    def __init__(self, places: int, seconds: float) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._worker = threading.Lock()
        self._seconds = seconds
        self.refused = 0

    def judge(self, request):
        if not self._places.acquire(blocking=False):
            self.refused += 1
            raise RefusalError(BUSY, "QUEUE_FULL", "The queue is full.", 20)
        try:
            with self._worker:
                time.sleep(self._seconds)
            return make_response(request)
        finally:
            self._places.release()


def test_refused_call_is_made_again(server: FakeServer, either: ClientKind) -> None:
    """QUEUE_FULL with a hint is waited out; the caller gets the answer and learns nothing of it."""
    server.servicer.judge = refuse(3)

    assert either.call("predict", b"stroke").label == "stroke"
    assert len(server.servicer.requests) == 4
    assert len({request.id for request in server.servicer.requests}) == 1


@pytest.mark.parametrize("hint", [None, 0])
def test_refusal_of_an_older_server_is_waited_out_too(server: FakeServer, either: ClientKind, hint: int | None) -> None:
    """Without a hint, or with one that says at once, the client's own pauses hold."""
    server.servicer.judge = refuse(3, hint)

    assert either.call("predict", b"stroke", timeout=60).label == "stroke"


def test_hint_is_the_least_pause(server: FakeServer, either: ClientKind) -> None:
    """Nobody comes back before the server said."""
    moments: list[float] = []
    refusing = refuse(3, 150)

    def judge(request):
        moments.append(time.monotonic())
        return refusing(request)

    server.servicer.judge = judge
    either.call("predict", b"stroke")

    assert all(later - earlier >= 0.149 for earlier, later in pairwise(moments))


def test_hint_beyond_the_time_is_the_refusal_at_once(server: FakeServer, either: ClientKind) -> None:
    """When the time does not suffice for another try, the refusal is the error, promptly."""
    server.servicer.judge = refuse(9, 120_000)
    started = time.monotonic()

    with pytest.raises(OverloadedError, match="queue is full") as caught:
        either.call("predict", b"stroke", timeout=60)

    assert (caught.value.reason, caught.value.retry_after) == ("QUEUE_FULL", 120.0)
    assert time.monotonic() - started < 20
    assert len(server.servicer.requests) == 1


def test_server_that_stays_busy_is_an_overload(server: FakeServer, either: ClientKind) -> None:
    """At the end of the time the error is what the server said, not that time is over."""
    server.servicer.judge = refuse(1000)
    started = time.monotonic()

    with pytest.raises(OverloadedError) as caught:
        either.call("predict", b"stroke", timeout=1.5)

    assert caught.value.reason == "QUEUE_FULL"
    assert 1.2 < time.monotonic() - started < 20
    assert 1 < len(server.servicer.requests) < 60


@pytest.mark.parametrize("hint", [-1, "soon"])
def test_server_that_wants_no_repetition_gets_none(server: FakeServer, either: ClientKind, hint: int | str) -> None:
    """A hint that is negative or no number says not to come again (gRFC A6)."""
    server.servicer.judge = refuse(1, hint)

    with pytest.raises(OverloadedError):
        either.call("predict", b"stroke")
    assert len(server.servicer.requests) == 1


def test_one_attempt_is_one_attempt(server: FakeServer, either: ClientKind) -> None:
    """``max_attempts=1`` switches all repetition off."""
    either.options["retry"] = RetryConfig(max_attempts=1)
    server.servicer.judge = refuse(1)

    with pytest.raises(OverloadedError):
        either.call("predict", b"stroke")
    assert len(server.servicer.requests) == 1


def test_message_above_a_limit_is_not_sent_again(either: ClientKind) -> None:
    """gRPC's RESOURCE_EXHAUSTED about a size is no overload."""
    started = time.monotonic()

    with serve(options=[("grpc.max_receive_message_length", 1000)]) as server:
        either.target = server.target
        with pytest.raises(ImageTooLargeError):
            either.call("predict", b"x" * 2000, timeout=60)

    assert time.monotonic() - started < 20


def test_limit_of_grpc_itself_is_waited_out() -> None:
    """A server that was set to take no more calls at a time says neither reason nor hint, and takes them later."""
    errors = [
        OverloadedError("the server is busy (Concurrent RPC limit exceeded!)", "SERVER_BUSY", "RESOURCE_EXHAUSTED"),
        OverloadedError("full", "QUEUE_FULL", "RESOURCE_EXHAUSTED"),
    ]
    assert [is_repeatable(error) for error in errors] == [False, True]
    errors[0].retry_after = 0.0
    assert is_repeatable(errors[0])


def test_images_of_a_stream_are_sent_again(server: FakeServer, either: ClientKind) -> None:
    """A refused image goes out again as its PredictError says; every image has its result, in order."""
    server.servicer.judge = refuse(7, 30)

    assert [result.label for result in either.predict_many(make_images(40))] == expect_labels(40)


def test_more_threads_than_the_server_has_places(server: FakeServer) -> None:
    """Many threads on one client against a small queue: all are answered, though many are refused on the way."""
    small = SmallServer(places=4, seconds=0.002)
    server.servicer.judge = small.judge
    with StrokeClient(server.target, timeout=120) as client, ThreadPoolExecutor(24) as pool:
        labels = list(pool.map(lambda _: client.predict(b"stroke").label, range(300)))

    assert labels == ["stroke"] * 300
    assert small.refused > 0


def test_more_tasks_than_the_server_has_places(server: FakeServer) -> None:
    """The same with tasks of an event loop."""
    small = SmallServer(places=4, seconds=0.002)
    server.servicer.judge = small.judge

    async def run() -> list[Prediction]:
        async with AsyncStrokeClient(server.target, timeout=120) as client:
            return await asyncio.gather(*(client.predict(b"stroke") for _ in range(200)))

    assert len(asyncio.run(run())) == 200
    assert small.refused > 0


def test_more_calls_than_a_connection_carries() -> None:
    """A server that resets the calls above its limit has not read them: they are made again."""
    with serve(options=[("grpc.max_concurrent_streams", 2)]) as server:
        server.servicer.judge = SmallServer(places=100, seconds=0.002).judge
        with StrokeClient(server.target, timeout=120) as client, ThreadPoolExecutor(64) as pool:
            labels = list(pool.map(lambda _: client.predict(b"stroke").label, range(300)))

    assert labels == ["stroke"] * 300


def test_those_refused_together_do_not_come_back_together() -> None:
    """The pauses are spread over more than the hint itself, and grow."""
    refusal = OverloadedError("full", "QUEUE_FULL", "RESOURCE_EXHAUSTED", retry_after=0.1)
    first = [choose_pause(refusal, 0.2, 1.0) for _ in range(400)]
    later = [choose_pause(refusal, 0.8, 1.0) for _ in range(400)]

    assert 0.1 <= min(first) < 0.12
    assert 0.28 < max(first) <= 0.3
    assert 0.8 < max(later) <= 0.9


def test_tries_come_closer_towards_the_end() -> None:
    """However long the pauses have grown, none takes more than a part of the time that is left."""
    retry = Retry(Config(initial_backoff=5, max_backoff=60), 0.0, 10.0)
    refusal = OverloadedError("full", "QUEUE_FULL", "RESOURCE_EXHAUSTED", retry_after=0.0)
    now, pauses = 0.0, []
    while (pause := retry.judge(refusal, now)) is not None:
        assert pause <= (10.0 - now) / 4
        now += pause
        pauses.append(pause)

    assert 9.9 < now < 10.0
    assert len(pauses) > 15
