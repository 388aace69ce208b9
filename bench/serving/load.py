"""The load generator: closed loops for throughput, an open loop for latency. Runs in a process of its own.

A closed loop sends when the last answer has come, so a slow server is asked less often and its worst moments are hardly
sampled ("coordinated omission"). The open loop sends by a timetable that does not know the server, and counts latency
from the time at which a request was due, whether or not it could be sent then.

Standard library only, so that it runs in the environment of any peer; ``bench.serving.targets`` knows how to call each
server.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.images import read_images
from bench.serving.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
OPEN_CONNECTIONS = 32
"""Requests of the open loop that can be on their way at once. Not more than the server's default queue, so that a short
burst waits instead of being refused."""

Call = Callable[[bytes], None]
Connect = Callable[[], AbstractContextManager[Call]]


@dataclass(frozen=True)
class Load:
    """What one load found."""

    latencies_ms: list[float]
    """Of each counted request, in milliseconds, unordered."""

    seconds: float
    """Length of the measurement."""

    calls: int
    """All answered requests, those of the warm-up and after the end included: what the server's CPU was spent on."""

    failures: int = 0
    """Requests that were due and not answered."""


def run_closed(connect: Connect, images: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Runs ``clients`` threads, each with a connection of its own, that send again as soon as they are answered."""
    ready = threading.Barrier(clients, timeout=60)

    def loop(index: int) -> tuple[list[float], int]:
        latencies: list[float] = []
        with connect() as call:
            call(images[0])
            ready.wait()
            end = time.monotonic() + seconds
            while True:
                started = time.monotonic()
                call(images[(17 * index + len(latencies)) % len(images)])
                if (finished := time.monotonic()) > end:  # counted is what was answered in time, as in the bare loop
                    return latencies, len(latencies) + 2
                latencies.append(1000 * (finished - started))

    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(loop, range(clients)))
    return Load([latency for result, _ in results for latency in result], seconds, sum(calls for _, calls in results))


def make_timetable(rate: float, seconds: float, seed: int) -> list[float]:
    """Returns when requests are due: Poisson arrivals at ``rate`` per second, in seconds from the start, ascending."""
    source = random.Random(seed)
    due, timetable = source.expovariate(rate), []
    while due < seconds:
        timetable.append(due)
        due += source.expovariate(rate)
    return timetable


def run_open(
    connect: Connect, images: Sequence[bytes], timetable: Sequence[float], connections: int = OPEN_CONNECTIONS
) -> Load:
    """Sends by a timetable. Every request that was due is sent and counted, however late, from when it was due."""
    indices = iter(range(len(timetable)))
    lock = threading.Lock()
    starts: list[float] = []
    # The clock starts for all threads at once, when the last of them is connected.
    ready = threading.Barrier(connections, action=lambda: starts.append(time.monotonic()), timeout=60)

    def loop(_: int) -> tuple[list[float], int]:
        latencies: list[float] = []
        failures = 0
        with connect() as call:
            call(images[0])
            ready.wait()
            while True:
                with lock:
                    index = next(indices, None)
                if index is None:
                    return latencies, failures
                due = starts[0] + timetable[index]
                time.sleep(max(due - time.monotonic(), 0))
                try:
                    call(images[index % len(images)])
                except Exception:  # a refusal is a result: it is counted, and the timetable goes on
                    failures += 1
                else:
                    latencies.append(1000 * (time.monotonic() - due))

    with ThreadPoolExecutor(connections) as pool:
        results = list(pool.map(loop, range(connections)))
    latencies = [latency for result, _ in results for latency in result]
    failures = sum(count for _, count in results)
    return Load(latencies, time.monotonic() - starts[0], len(latencies) + connections, failures)


def spawn(
    target: str,
    address: str,
    images: Path,
    seconds: float,
    *,
    clients: int = 0,
    rate: float = 0,
    seed: int = 0,
    python: str = sys.executable,
) -> Load:
    """Runs a closed loop (``clients``) or an open one (``rate`` per second) in another process.

    Args:
        target: how to call the server, a key of ``bench.serving.targets.TARGETS``.
        address: where it listens, HOST:PORT.
        images: folder of images.
        seconds: length of the measurement.
        clients: clients of a closed loop.
        rate: requests a second of an open loop.
        seed: which timetable an open loop follows.
        python: interpreter whose environment has the target's packages.
    """
    load = ["--clients", str(clients)] if clients else ["--rate", str(rate), "--seed", str(seed)]
    command = [
        python,
        "-m",
        "bench.serving.load",
        target,
        address,
        "--images",
        str(images),
        "--seconds",
        str(seconds),
        *load,
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300 + 10 * seconds)
    if result.returncode != 0:
        raise RuntimeError(f"the load on {target} at {address} failed:\n{result.stderr[-2000:]}")
    return Load(**json.loads(result.stdout))


def main(argv: Sequence[str] | None = None) -> int:
    """Loads a server and prints what it found as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving.load", description="Loads a server; prints JSON.")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("--images", type=Path, default=ROOT / "samples")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=1, help="clients of a closed loop")
    parser.add_argument("--rate", type=float, help="requests a second of an open loop")
    parser.add_argument("--seed", type=int, default=0, help="timetable of the open loop")
    options = parser.parse_args(argv)
    images = read_images(options.images)

    def connect() -> AbstractContextManager[Call]:
        return TARGETS[options.target](options.address)

    if options.rate:
        load = run_open(connect, images, make_timetable(options.rate, options.seconds, options.seed))
    else:
        load = run_closed(connect, images, options.clients, options.seconds)
    print(json.dumps(asdict(load)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
