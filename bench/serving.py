"""``make bench``: how much of the machine the server turns into answers, what it costs in memory, how fast it starts.

Everything is measured against the raw limit, a bare loop of decode and ``session.run`` on all processors, in rounds
that take turns within one run: absolute figures drift from minute to minute on shared machines, ratios do not.
The server and its clients share the processors, as they do on a small box.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np

from server.preprocess import load_pixels
from server.processors import count_processors
from server.registry import find_only_model
from server.runtime import load_model

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 4, 8)
SECONDS = 3.0
"""Length of one measurement; one round has one of each."""


def read_images(folder: Path) -> list[bytes]:
    """Returns the encoded images of a folder, at least one."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"bench: no PNG or JPEG in {folder}: give another folder with --images")
    return [path.read_bytes() for path in files[:200]]


def run_threads(count: int, work: Callable[[int], list[float]]) -> list[float]:
    """Runs ``work(index)`` in threads and returns all that they return."""
    with ThreadPoolExecutor(count) as pool:
        return [value for result in pool.map(work, range(count)) for value in result]


def measure_limit(images: Sequence[bytes], models: Path, seconds: float) -> float:
    """Images a second of a bare loop of decode and run, one single-threaded session a processor."""
    model = load_model(find_only_model(models))
    end = time.monotonic() + seconds

    def loop(index: int) -> list[float]:
        done = 0
        while True:
            pixels = load_pixels(images[(index + done) % len(images)], model.input_format)
            model.run(pixels.array[np.newaxis])
            if time.monotonic() > end:
                return [done]
            done += 1

    return sum(run_threads(count_processors(), loop)) / seconds


def run_clients(address: str, folder: Path, clients: int, seconds: float) -> list[float]:
    """Latencies in milliseconds of closed-loop clients, each with a connection of its own. Runs in its own process."""
    from client import StrokeClient

    images = read_images(folder)
    ready = threading.Barrier(clients, timeout=60)

    def loop(index: int) -> list[float]:
        latencies: list[float] = []
        with StrokeClient(address, timeout=60) as client:
            client.wait_until_ready()
            client.predict(images[0])
            ready.wait()
            end = time.monotonic() + seconds
            while True:
                started = time.monotonic()
                client.predict(images[(17 * index + len(latencies)) % len(images)])
                if (finished := time.monotonic()) > end:  # counted only what was answered in time, as in the limit
                    return latencies
                latencies.append(1000 * (finished - started))

    return run_threads(clients, loop)


@contextmanager
def run_server(models: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process on a free port, and its address."""
    command = [sys.executable, "-m", "server", "--models", str(models), "--port", "0", "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        try:
            banner = process.stdout.readline().strip()
            if not banner:
                raise SystemExit("bench: the server did not start")
            yield process, banner.rsplit(" ", 1)[1]
        finally:
            process.terminate()
            process.wait()


def measure_clients(address: str, folder: Path, clients: int, seconds: float) -> list[float]:
    """``run_clients`` in another process."""
    command = [sys.executable, "-m", "bench.serving", "--images", str(folder), "--seconds", str(seconds)]
    output = subprocess.run(
        [*command, "--as-clients", str(clients), address], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return list(json.loads(output.stdout))


def measure_cold_start(images: Sequence[bytes], models: Path) -> float:
    """Seconds from starting the server process to its first answer."""
    from client import StrokeClient

    started = time.monotonic()
    with run_server(models) as (_, address), StrokeClient(address) as client:
        client.predict(images[0])
        return time.monotonic() - started


def measure_help() -> float:
    """Seconds of ``python -m client --help``."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "client", "--help"], cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


def read_rss(process: subprocess.Popen[str]) -> float:
    """Resident memory of a process in MB; Linux only."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def describe_machine() -> str:
    """Processor and versions, for the head of a report."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "grpcio", "pillow", "numpy"))
    return (
        f"{names[0] if names else platform.processor()}, {count_processors()} processors for server and clients "
        f"together; Python {platform.python_version()}, {packages}"
    )


def summarise(values: Sequence[float], form: str = ".2f") -> str:
    """Median with minimum and maximum."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=ROOT / "samples", help="folder of images (default: samples)")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="folder of models (default: models)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of a measurement (default: %(default)g)")
    parser.add_argument("--as-clients", nargs=2, metavar=("N", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.as_clients:
        clients, address = options.as_clients
        print(json.dumps(run_clients(address, options.images, int(clients), options.seconds)))
        return 0

    images = read_images(options.images)
    print(describe_machine())
    print(f"{len(images)} images of {sum(map(len, images)) / len(images) / 1000:.0f} kB on average; model: ", end="")
    model = load_model(find_only_model(options.models))
    print(f"{model.spec.name} {model.spec.version}; {options.rounds} rounds of {options.seconds:g} s each")
    cold = [measure_cold_start(images, options.models) for _ in range(options.rounds)]
    helps = [measure_help() for _ in range(options.rounds)]
    limits: list[float] = []
    latencies: dict[int, list[float]] = {count: [] for count in CLIENTS}
    rates: dict[int, list[float]] = {count: [] for count in CLIENTS}
    with run_server(options.models) as (process, address):
        for round_ in range(options.rounds):
            limits.append(measure_limit(images, options.models, options.seconds))
            for count in CLIENTS:
                measured = measure_clients(address, options.images, count, options.seconds)
                latencies[count] += measured
                rates[count].append(len(measured) / options.seconds)
            print(f"round {round_ + 1}/{options.rounds} done", file=sys.stderr)
        memory = read_rss(process)
    print(f"\n{'':22}{'images/s':>24}{'share of the limit':>24}{'p50 ms':>9}{'p99 ms':>9}")
    print(f"{'bare loop (limit)':22}{summarise(limits, '.0f'):>24}{'1':>24}")
    for count in CLIENTS:
        shares = [rate / limit for rate, limit in zip(rates[count], limits, strict=True)]
        p50, p99 = np.percentile(latencies[count], (50, 99))
        label = f"server, {count} client{'s' if count > 1 else ''}"
        print(f"{label:22}{summarise(rates[count], '.0f'):>24}{summarise(shares):>24}{p50:9.1f}{p99:9.1f}")
    print(f"\nserver memory after all rounds   {memory:.0f} MB resident")
    print(f"cold start to first answer       {summarise(cold)} s")
    print(f"python -m client --help          {summarise(helps)} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
