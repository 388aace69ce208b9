"""The load generator: what it counts, and from when. Its targets here are functions, so nothing depends on speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from bench.serving.load import Call, make_timetable, run_closed, run_open

IMAGES = [b"first", b"second", b"third"]


def connect_to(call: Call) -> Callable[[], AbstractContextManager[Call]]:
    """Connections to a target that does nothing but ``call``."""

    @contextmanager
    def connect() -> Iterator[Call]:
        yield call

    return connect


def test_timetable_is_poisson_at_the_asked_rate() -> None:
    """As many requests as asked, within four standard deviations, in order, all within the time."""
    timetable = make_timetable(rate=100, seconds=100, seed=1)

    assert len(timetable) == pytest.approx(10_000, abs=400)
    assert timetable == sorted(timetable)
    assert timetable[0] > 0
    assert timetable[-1] < 100


def test_timetable_depends_on_the_seed_alone() -> None:
    """Two servers can be asked at the same moments."""
    assert make_timetable(50, 2, seed=3) == make_timetable(50, 2, seed=3)
    assert make_timetable(50, 2, seed=3) != make_timetable(50, 2, seed=4)


def test_open_loop_counts_from_when_a_request_was_due() -> None:
    """Behind a target of 20 ms that is due at once five times, the last request has waited for the four before it."""
    load = run_open(connect_to(lambda image: time.sleep(0.02)), IMAGES, [0.0] * 5, connections=1)

    assert all(latency >= 20 * position for position, latency in enumerate(sorted(load.latencies_ms), start=1))


def test_open_loop_omits_nothing_while_the_target_hangs() -> None:
    """Requests that fall due during a pause are sent and counted after it, each with its own share of the pause."""
    pauses = iter([0.0, 0.3])  # the warm-up, then the first request
    due = [0.0, 0.1, 0.2]

    load = run_open(connect_to(lambda image: time.sleep(next(pauses, 0))), IMAGES, due, connections=1)

    assert len(load.latencies_ms) == 3
    for latency, least in zip(sorted(load.latencies_ms, reverse=True), (300, 200, 100), strict=True):
        assert latency >= least


def test_open_loop_sends_nothing_before_it_is_due() -> None:
    """The timetable is kept from the early side too."""
    calls: list[float] = []

    run_open(connect_to(lambda image: calls.append(time.monotonic())), IMAGES, [0.05, 0.1], connections=2)

    *warm_up, first, second = calls
    assert len(warm_up) == 2
    assert first >= max(warm_up) + 0.05
    assert second >= max(warm_up) + 0.1


def test_open_loop_counts_refusals_and_goes_on() -> None:
    """A refusal is no latency."""
    answers = iter([None, None, RuntimeError("full"), None])  # the first is the warm-up

    def call(image: bytes) -> None:
        if (answer := next(answers)) is not None:
            raise answer

    load = run_open(connect_to(call), IMAGES, [0.0, 0.0, 0.0], connections=1)

    assert (len(load.latencies_ms), load.failures) == (2, 1)


def test_closed_loop_gives_each_client_a_connection_of_its_own() -> None:
    """As hospital systems have."""
    connections: list[int] = []

    @contextmanager
    def connect() -> Iterator[Call]:
        connections.append(threading.get_ident())
        yield lambda image: time.sleep(0.001)

    run_closed(connect, IMAGES, clients=3, seconds=0.05)

    assert len(set(connections)) == 3


def test_closed_loop_counts_only_what_was_answered_in_time() -> None:
    """The warm-up and the answer after the end are calls, since they cost CPU, but no measured requests."""
    calls: list[bytes] = []

    def call(image: bytes) -> None:
        calls.append(image)
        time.sleep(0.01)

    load = run_closed(connect_to(call), IMAGES, clients=2, seconds=0.1)

    assert load.calls == len(calls) == len(load.latencies_ms) + 2 * 2
    assert set(calls) == set(IMAGES)
