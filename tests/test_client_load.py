"""Load on a server: what is counted, and from when on."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest

from client import StrokeClient
from client.cli.bench.load import Load, LoadRun, make_timetable
from tests.client_fakes import FakeServer, make_response

IMAGE = b"stroke image"


def test_timetable_offers_the_rate_that_it_says() -> None:
    """Exactly, whatever the seed; Poisson intervals are spread like an exponential, fixed ones not at all."""
    poisson = np.diff(make_timetable(50, 200, seed=3))
    fixed = np.diff(make_timetable(50, 200, arrivals="fixed"))

    assert len(poisson) == len(fixed) == 50 * 200 - 1
    assert poisson.min() >= 0
    assert poisson.std() / poisson.mean() == pytest.approx(1, abs=0.05)
    assert fixed == pytest.approx(0.02)
    assert make_timetable(50, 1, seed=1) != make_timetable(50, 1, seed=2)
    assert make_timetable(50, 1, seed=1) == make_timetable(50, 1, seed=1)


def stall(server: FakeServer, begin: float, seconds: float) -> list[float]:
    """Has the server stop for a while, from ``begin`` seconds after its next request on: how long each was held."""
    first: list[float] = []
    held: list[float] = []

    def judge(request):
        first.append(time.monotonic())
        since = time.monotonic() - first[0]
        if begin <= since < begin + seconds:
            held.append(begin + seconds - since)
            time.sleep(held[-1])
        return make_response(request)

    server.servicer.judge = judge
    return held


def connect(client: StrokeClient):
    """How a load reaches a server: here all senders share one client."""
    return lambda: nullcontext(lambda image: client.predict(image) and {})


def run_load(client: StrokeClient, seconds: float, *, rate: float = 0, clients: int = 0, senders: int = 128) -> Load:
    with LoadRun([IMAGE], warmup=0, seconds=seconds, patience=5) as run:
        if rate:
            run.start_open(connect(client), make_timetable(rate, seconds, arrivals="fixed"), senders)
        else:
            run.start_closed(connect(client), clients)
        assert run.wait(60)
    return run.load


@pytest.mark.parametrize("senders", [128, 4])
def test_stall_shows_in_an_open_loop(server: FakeServer, client: StrokeClient, senders: int) -> None:
    """300 ms without answers hit the third of the images that were due then, each for the rest of the 300 ms; also
    those that could not leave because all senders were waiting, which would look fast counted from when they left."""
    stall(server, 0.3, 0.3)

    load = run_load(client, 1.0, rate=100, senders=senders)

    assert load.latencies.count == 100
    assert load.latencies.maximum >= 0.27
    late, latest = load.latencies.find_percentiles([85, 99])
    assert late >= 0.1
    assert latest >= 0.25
    assert (load.crowded > 15) == (senders == 4)


def test_stall_hides_in_a_closed_loop(server: FakeServer, client: StrokeClient) -> None:
    """The same stop is one slow answer among many: why the report says what a closed loop cannot see."""
    held = stall(server, 0.3, 0.3)

    load = run_load(client, 1.0, clients=1)

    assert len(held) == 1
    assert load.latencies.maximum >= held[0]


def test_closed_loop_has_as_many_on_their_way_as_clients(server: FakeServer, client: StrokeClient) -> None:
    """Never more than N, and N of them at some time."""
    lock, now, most = threading.Lock(), [0], [0]

    def judge(request):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1
        return make_response(request)

    server.servicer.judge = judge

    load = run_load(client, 0.5, clients=4)

    assert most[0] == 4
    assert load.latencies.count == pytest.approx(len(server.servicer.requests), abs=1)
    assert load.completed == pytest.approx(load.latencies.count, abs=4)


def test_warmup_is_not_counted(server: FakeServer, client: StrokeClient) -> None:
    """Neither its images nor its time."""
    with LoadRun([IMAGE], warmup=0.3, seconds=0.3, patience=5) as run:
        run.start_open(connect(client), make_timetable(100, 0.3, warmup=0.3, arrivals="fixed"))
        assert run.wait(60)

    assert run.load.latencies.count == pytest.approx(30, abs=1)
    assert run.load.seconds == pytest.approx(0.3)
    assert run.load.answered == 60
    assert len(server.servicer.requests) == 60


def test_overload_ends_soon_after_its_timetable(server: FakeServer, client: StrokeClient) -> None:
    """Images that could not even be sent in time are failures, not an endless queue; the report says why."""
    server.servicer.judge = server.servicer.hang
    threading.Timer(1.2, server.servicer.released.set).start()
    with LoadRun([IMAGE], warmup=0, seconds=0.4, patience=0.5) as run:
        run.start_open(connect(client), make_timetable(1000, 0.4, arrivals="fixed"))
        assert run.wait(60)

    load = run.load
    assert load.errors["NOT_SENT"] > 200
    assert load.latencies.count + load.errors.total() == 400


def test_all_are_connected_before_the_clock_starts() -> None:
    """Each sender has a connection of its own; a slow handshake delays no image, and all are closed in the end."""
    opened, sent, closed = [], [], []

    def send(image: bytes) -> dict[str, float]:
        sent.append(time.monotonic())
        return {}

    @contextmanager
    def connect_slowly() -> Iterator:
        time.sleep(0.05)
        opened.append(time.monotonic())
        yield send
        closed.append(True)

    with LoadRun([IMAGE], warmup=0, seconds=0.1, patience=math.inf) as run:
        run.start_open(connect_slowly, make_timetable(50, 0.1, arrivals="fixed"), senders=4)
        assert run.wait(60)

    assert (len(opened), len(closed)) == (4, 4)
    assert run.load.latencies.count == 5
    assert min(sent) >= max(opened)


def test_failures_are_counted_by_what_they_say() -> None:
    """By the reason that they have, as this client's have, or by their class; they are no latencies."""

    class RefusedError(Exception):
        reason = "SERVER_BUSY"

    failures = iter([RefusedError(), KeyError("x"), RefusedError()])

    def send(image: bytes) -> dict[str, float]:
        if (failure := next(failures, None)) is not None:
            raise failure
        return {"inference": 2.0}

    with LoadRun([IMAGE], warmup=0, seconds=1, patience=math.inf) as run:
        run.start_open(lambda: nullcontext(send), [0.0, 0.01, 0.02, 0.03, 0.04], senders=1)
        assert run.wait(60)

    assert run.load.errors == {"SERVER_BUSY": 2, "KeyError": 1}
    assert (run.load.latencies.count, run.load.offered, run.load.server_ms) == (2, 5, {"inference": 4.0})
