"""Load on a server: what is counted, from when on, and how well percentiles are known."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

from client import StrokeClient
from client.cli.bench.histogram import HIGHEST_MICROSECONDS, LatencyHistogram
from client.cli.bench.load import Load, LoadRun, make_timetable
from tests.client_fakes import FakeServer, make_response

IMAGE = b"stroke image"


@pytest.mark.parametrize("median", [50e-6, 3e-3, 0.4])
def test_percentiles_agree_with_exact_ones(median: float) -> None:
    """To 0.1 %, over five decades; mean, minimum and maximum are exact to the microsecond."""
    values = np.random.default_rng(1).lognormal(np.log(median), 1.5, 20_000)
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value)

    for percent in (0, 1, 50, 90, 99, 99.9, 99.99, 100):
        exact = np.sort(values)[max(math.ceil(round(20_000 * percent / 100, 6)), 1) - 1]
        assert histogram.percentile(percent) == pytest.approx(exact, rel=1e-3, abs=1e-6)
    assert histogram.mean == pytest.approx(values.mean(), abs=1e-6)
    assert (histogram.minimum, histogram.maximum) == pytest.approx((values.min(), values.max()), abs=1e-6)
    assert histogram.count == 20_000


def test_histogram_has_a_fixed_size_and_an_end() -> None:
    """From 0 to an hour, and beyond; what is longer counts as an hour."""
    histogram = LatencyHistogram()
    size = len(histogram._counts)
    for seconds in (0.0, 1e-6, 3600.0, 1e9):
        histogram.record(seconds)

    assert len(histogram._counts) == size == 23_552
    assert histogram.percentile(25) == 0.0
    assert histogram.percentile(50) == 1e-6
    assert histogram.percentile(100) == histogram.maximum == HIGHEST_MICROSECONDS / 1e6


def test_empty_histogram_has_no_figures() -> None:
    """Nothing was measured; that is no error."""
    assert LatencyHistogram().percentile(99) == LatencyHistogram().mean == 0.0


def test_timetable_offers_the_rate_that_it_says() -> None:
    """Exactly, whatever the seed; Poisson intervals are spread like an exponential, fixed ones not at all."""
    poisson = np.diff(make_timetable(50, 200, "poisson", 3))
    fixed = np.diff(make_timetable(50, 200, "fixed", 3))

    assert len(poisson) == len(fixed) == 50 * 200 - 1
    assert poisson.min() >= 0
    assert poisson.std() / poisson.mean() == pytest.approx(1, abs=0.05)
    assert fixed == pytest.approx(0.02)
    assert make_timetable(50, 1, "poisson", 1) != make_timetable(50, 1, "poisson", 2)
    assert make_timetable(50, 1, "poisson", 1) == make_timetable(50, 1, "poisson", 1)


def stall(server: FakeServer, begin: float, seconds: float) -> None:
    """Has the server stop for a while, from ``begin`` seconds after its next request on."""
    first: list[float] = []

    def judge(request):
        first.append(time.monotonic())
        since = time.monotonic() - first[0]
        if begin <= since < begin + seconds:
            time.sleep(begin + seconds - since)
        return make_response(request)

    server.servicer.judge = judge


def run_load(client: StrokeClient, seconds: float, *, rate: float = 0, clients: int = 0) -> Load:
    run = LoadRun(client, [IMAGE], warmup=0, seconds=seconds, patience=5)
    if rate:
        run.start_open(make_timetable(rate, seconds, "fixed", 0))
    else:
        run.start_closed(clients)
    assert run.wait(60)
    run.stop()
    return run.recorder.load


@pytest.mark.parametrize("senders", [128, 4])
def test_stall_shows_in_an_open_loop(
    server: FakeServer, client: StrokeClient, senders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 ms without answers hit the third of the images that were due then, each for the rest of the 300 ms; also
    those that could not leave because all senders were waiting, which would look fast counted from when they left."""
    monkeypatch.setattr("client.cli.bench.load.MOST_SENDERS", senders)
    stall(server, 0.3, 0.3)

    load = run_load(client, 1.0, rate=100)

    assert load.latencies.count == 100
    assert load.latencies.maximum >= 0.27
    assert load.latencies.percentile(99) >= 0.25
    assert load.latencies.percentile(85) >= 0.1
    assert load.latencies.percentile(50) < 0.1
    assert (load.crowded > 15) == (senders == 4)


def test_stall_hides_in_a_closed_loop(server: FakeServer, client: StrokeClient) -> None:
    """The same stop is one slow answer among many: why the report says what a closed loop cannot see."""
    stall(server, 0.3, 0.3)

    load = run_load(client, 1.0, clients=1)

    assert load.latencies.maximum >= 0.27
    assert load.latencies.percentile(85) < 0.1


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
    run = LoadRun(client, [IMAGE], warmup=0.3, seconds=0.3, patience=5)
    run.start_open(make_timetable(100, 0.6, "fixed", 0))
    assert run.wait(60)
    run.stop()

    assert run.recorder.load.latencies.count == pytest.approx(30, abs=1)
    assert run.recorder.load.seconds == pytest.approx(0.3)
    assert len(server.servicer.requests) == 60


def test_overload_ends_soon_after_its_timetable(server: FakeServer, client: StrokeClient) -> None:
    """Images that could not even be sent in time are failures, not an endless queue; the report says why."""
    server.servicer.judge = server.servicer.hang
    threading.Timer(1.2, server.servicer.released.set).start()
    run = LoadRun(client, [IMAGE], warmup=0, seconds=0.4, patience=0.5)
    run.start_open(make_timetable(1000, 0.4, "fixed", 0))
    assert run.wait(60)
    run.stop()

    load = run.recorder.load
    assert load.errors["NOT_SENT"] > 200
    assert load.latencies.count + load.errors.total() == 400
