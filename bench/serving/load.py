"""Load on a server of any kind, from a process of its own: the client's load generator with this project's targets.

Nothing but the standard library is imported, ``client.cli.bench.load`` and the client's package included, so that it
runs in the environment of any peer; ``bench.serving.targets`` knows how to call each server.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench.images import read_images
from bench.serving.targets import NO_ACCESS, TARGETS, Access, Connect, connect_stroke
from client.cli.bench.load import LoadRun, Send, make_timetable
from server.flags import LineParser
from server.process.children import run

ROOT = Path(__file__).resolve().parents[2]
OPEN_CONNECTIONS = 32
"""Requests of the open loop that can be on their way at once. Not more than the server's default queue, so that a short
burst waits instead of being refused."""


@dataclass(frozen=True)
class Load:
    """What one load found."""

    latencies_ms: list[float]
    """Of each counted request, in milliseconds, unordered."""

    rate: float
    """Answers a second."""

    calls: int
    """All answered requests, those of the warm-up and after the end included: what the server's CPU was spent on."""

    failures: int = 0
    """Requests that were sent, or due, and not answered."""

    cpu_seconds: float = 0.0
    """CPU time of the process that made the load, user and system, from connecting on."""


def run_closed(connect: Connect, images: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Runs clients, each with a connection of its own, that send again as soon as they are answered."""
    cpu = time.process_time()
    with LoadRun(images, warmup=0, seconds=seconds, patience=math.inf) as run:
        run.start_closed(partial(open_warm, connect, images[0]), clients)
        return finish(run, clients, cpu)


def run_open(
    connect: Connect,
    images: Sequence[bytes],
    timetable: Sequence[float],
    seconds: float,
    senders: int = OPEN_CONNECTIONS,
) -> Load:
    """Sends by a timetable. Every request that was due is sent and counted, however late, from when it was due."""
    cpu = time.process_time()
    with LoadRun(images, warmup=0, seconds=seconds, patience=math.inf) as run:
        run.start_open(partial(open_warm, connect, images[0]), timetable, senders)
        return finish(run, min(senders, len(timetable)), cpu)


@contextmanager
def open_warm(connect: Connect, image: bytes) -> Iterator[Send]:
    """Opens a connection that has had one answer already, so that no counted request pays for it."""
    with connect() as call:

        def send(image: bytes) -> Mapping[str, float]:
            call(image)
            return {}

        send(image)
        yield send


def finish(run: LoadRun, connections: int, cpu_before: float) -> Load:
    """Waits for the end of a load whose connections have had one answer each before it."""
    while not run.wait(1):
        pass
    load = run.load
    latencies = [1000 * seconds for seconds in load.latencies.kept]
    cpu_seconds = time.process_time() - cpu_before
    return Load(latencies, load.rate, load.answered + connections, load.errors.total(), cpu_seconds)


def spawn(
    target: str,
    address: str,
    images: Path,
    seconds: float,
    *,
    clients: int = 0,
    rate: float = 0,
    seed: int = 0,
    access: Access = NO_ACCESS,
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
        access: how clients of this project's server show who they are.
        python: interpreter whose environment has the target's packages.
    """
    shown = [("--certs", access.certs), ("--token", access.token)]
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
        *(word for flag, path in shown if path is not None for word in (flag, str(path))),
    ]
    result = run(command, cwd=ROOT, capture_output=True, text=True, timeout=300 + 10 * seconds)
    if result.returncode != 0:
        raise RuntimeError(f"the load on {target} at {address} failed:\n{result.stderr[-2000:]}")
    return Load(**json.loads(result.stdout))


def main(argv: Sequence[str] | None = None) -> int:
    """Loads a server and prints what it found as JSON."""
    parser = LineParser("python -m bench.serving.load", "Loads a server; prints JSON.")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("--images", type=Path, default=ROOT / "samples")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=1, help="clients of a closed loop")
    parser.add_argument("--rate", type=float, help="requests a second of an open loop")
    parser.add_argument("--seed", type=int, default=0, help="timetable of the open loop")
    parser.add_argument("--certs", type=Path, help="folder of 'python -m server certs': mutual TLS (stroke alone)")
    parser.add_argument("--token", type=Path, help="file with a token (stroke alone)")
    options = parser.parse_args(argv)
    images = read_images(options.images)
    connect: Connect = partial(TARGETS[options.target], options.address)
    if options.target == "stroke":
        connect = partial(connect_stroke, options.address, Access(options.certs, options.token))
    if options.rate:
        timetable = make_timetable(options.rate, options.seconds, seed=options.seed)
        load = run_open(connect, images, timetable, options.seconds)
    else:
        load = run_closed(connect, images, options.clients, options.seconds)
        if load.failures:  # a refusal is answered fast, and would leave more of the machine to the others
            raise SystemExit(f"bench: {load.failures} of {load.failures + len(load.latencies_ms)} requests failed")
    print(json.dumps(asdict(load)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
