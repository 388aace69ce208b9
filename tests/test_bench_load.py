"""The load of benchmarks: what is counted, and from when. Its targets are functions, so nothing depends on speed.

What the load generator itself does is tested in ``test_client_load``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.serving.load import run_closed, run_open, spawn
from bench.serving.noop_server import run_noop_server
from bench.serving.targets import Call, Connect
from tests.fakes import ROOT

IMAGES = [b"first", b"second", b"third"]


def connect_to(call: Call) -> Connect:
    """Connections to a target that does nothing but ``call``."""

    @contextmanager
    def connect() -> Iterator[Call]:
        yield call

    return connect


def test_open_loop_counts_from_when_a_request_was_due() -> None:
    """Behind a target of 20 ms that is due at once five times, the last request has waited for the four before it."""
    load = run_open(connect_to(lambda image: time.sleep(0.02)), IMAGES, [0.0] * 5, 0.01, senders=1)

    assert all(latency >= 20 * position for position, latency in enumerate(sorted(load.latencies_ms), start=1))


def test_open_loop_omits_nothing_while_the_target_hangs() -> None:
    """Requests that fall due during a pause are sent and counted after it, each with its own share of the pause."""
    pauses = iter([0.0, 0.3])  # the warm-up, then the first request
    due = [0.0, 0.1, 0.2]

    load = run_open(connect_to(lambda image: time.sleep(next(pauses, 0))), IMAGES, due, 0.3, senders=1)

    assert len(load.latencies_ms) == 3
    for latency, least in zip(sorted(load.latencies_ms, reverse=True), (300, 200, 100), strict=True):
        assert latency >= least


def test_open_loop_sends_nothing_before_it_is_due() -> None:
    """The timetable is kept from the early side too."""
    calls: list[float] = []

    run_open(connect_to(lambda image: calls.append(time.monotonic())), IMAGES, [0.05, 0.1], 0.2, senders=2)

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

    load = run_open(connect_to(call), IMAGES, [0.0, 0.0, 0.0], 0.01, senders=1)

    assert (len(load.latencies_ms), load.failures) == (2, 1)


def test_closed_loop_gives_each_client_a_connection_of_its_own() -> None:
    """As hospital systems have; each has had one answer before anything is counted."""
    connections: list[list[bytes]] = []

    @contextmanager
    def connect() -> Iterator[Call]:
        calls: list[bytes] = []
        connections.append(calls)
        yield calls.append
        assert calls[0] == IMAGES[0]

    load = run_closed(connect, IMAGES, clients=3, seconds=0.01)

    assert len(connections) == 3
    assert load.calls == sum(map(len, connections))


def test_closed_loop_counts_as_throughput_only_what_was_answered_in_time() -> None:
    """The warm-up and the answer after the end are calls, since they cost CPU, but no throughput."""
    calls: list[bytes] = []

    def call(image: bytes) -> None:
        calls.append(image)
        time.sleep(0.04)

    load = run_closed(connect_to(call), IMAGES, clients=2, seconds=0.1)

    assert load.calls == len(calls) == len(load.latencies_ms) + 2
    assert round(load.rate * 0.1) <= len(load.latencies_ms) - 2
    assert set(calls) == set(IMAGES)


def test_load_runs_where_only_the_standard_library_is() -> None:
    """Peers have environments of their own; whoever loads them may import nothing that they have not installed."""
    code = (
        "import sys; sys.path.insert(0, '.'); import bench.serving.load\n"
        "files = [getattr(module, '__file__', None) or '' for module in sys.modules.values()]\n"
        "assert not [file for file in files if 'site-packages' in file]"
    )

    done = subprocess.run([sys.executable, "-IS", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr


def test_closed_loop_with_a_failure_is_none(tmp_path: Path) -> None:
    """A refusal takes next to no time; the figures beside it would be of something else."""
    (tmp_path / "scan.png").write_bytes(b"not an image")

    with run_noop_server() as address, pytest.raises(RuntimeError, match="failed"):
        spawn("http", address, tmp_path, 0.1, clients=1)
