"""``make bench``: how much of the machine the server turns into answers, what it costs in memory, how fast it starts.

Everything is measured against the raw limit, a bare loop of decode and ``run``, in rounds that take turns within one
run: absolute figures drift from minute to minute on shared machines, ratios do not. The server and its clients share
the processors, as they do on a small box.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.images import read_images
from bench.processes import ROOT, Service, measure_installed_mb, run_server
from bench.report.figures import describe_latencies
from bench.report.machine import describe_machine
from bench.report.page import publish
from bench.serving.limit import measure_run_ms, run_bare
from bench.serving.load import spawn
from bench.serving.peak import measure_peak
from bench.serving.resnet50 import make_resnet50
from bench.serving.settings import add_common_options, describe_images, describe_model, split_numbers
from bench.serving.variants import list_precisions, load_bare, server_flags
from server.machine.processors import count_processors
from server.models.registry import list_folders
from server.models.runtime import OnnxModel

ENDURANCE_SECONDS = 2.0
"""How long a further model is asked before its memory is read."""


@dataclass(frozen=True)
class Plan:
    """What is measured in each round."""

    models: Path
    images: Path
    clients: list[int]
    loads: list[float]
    """Offered loads of the open loop, as shares of the limit that was measured in the same round."""

    seconds: float
    flags: list[str]
    """Further flags of the server."""


@dataclass
class Series:
    """What was measured of one precision: a list entry for each round."""

    bare: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Bare loops, by number of threads."""

    clients: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Closed loops, by number of clients."""

    open: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Open loops, by offered share of the limit."""

    run_ms: list[float] = field(default_factory=list)
    peak_gops: list[float] = field(default_factory=list)
    """Of one core in this precision's arithmetic, billions of operations a second."""

    cold_s: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)


def measure_bare(model: OnnxModel, images: Sequence[bytes], threads: int, seconds: float) -> dict[str, float]:
    """One bare loop."""
    loop = run_bare(model, images, threads, seconds)
    rate = len(loop.latencies_ms) / loop.seconds
    return {**describe_latencies(loop.latencies_ms), "rate": rate, "cpu_ms": loop.cpu_ms}


def measure_clients(service: Service, images: Path, clients: int, seconds: float) -> dict[str, float]:
    """One closed loop, with the server's CPU time for a request."""
    before = service.cpu_seconds()
    load = spawn("stroke", service.address, images, seconds, clients=clients)
    cpu_ms = 1000 * (service.cpu_seconds() - before) / load.calls
    return {**describe_latencies(load.latencies_ms), "rate": len(load.latencies_ms) / load.seconds, "cpu_ms": cpu_ms}


def measure_open(service: Service, images: Path, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """One open loop at ``rate`` requests a second."""
    load = spawn("stroke", service.address, images, seconds, rate=rate, seed=seed)
    return {**describe_latencies(load.latencies_ms), "offered": rate, "failures": load.failures}


def measure_cold_start(models: Path, image: bytes, flags: Sequence[str]) -> float:
    """Seconds from starting the server process to its first answer."""
    from client import StrokeClient

    started = time.monotonic()
    with run_server(models, flags) as service, StrokeClient(service.address) as client:
        client.predict(image)
        return time.monotonic() - started


def measure_help() -> float:
    """Seconds of ``python -m client --help``."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "client", "--help"], cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


def measure_round(plan: Plan, precision: str, model: OnnxModel, service: Service, series: Series, number: int) -> None:
    """One round of one precision: the limit and the server, backwards in every other round: drift favours no side."""
    turn = -1 if number % 2 else 1
    images = read_images(plan.images)
    series.peak_gops.append(measure_peak(plan.seconds / 2)[precision])
    series.run_ms.append(measure_run_ms(model, images, plan.seconds / 4))
    steps = [("bare", threads) for threads in sorted({1, count_processors()})]
    steps += [("clients", clients) for clients in plan.clients]
    for kind, count in steps[::turn]:
        if kind == "bare":
            series.bare.setdefault(str(count), []).append(measure_bare(model, images, count, plan.seconds))
        else:
            figures = measure_clients(service, plan.images, count, plan.seconds)
            series.clients.setdefault(str(count), []).append(figures)
    limit = series.bare[str(count_processors())][-1]["rate"]
    for load in plan.loads[::turn]:
        figures = measure_open(service, plan.images, load * limit, plan.seconds, seed=number)
        series.open.setdefault(f"{load:g}", []).append(figures)
    series.resident_mb.append(service.resident_mb())


def measure_model(models: Path, images: Path, flags: list[str], rounds: int) -> dict[str, list[float]]:
    """Start and memory of a further model, which is not set against the limit."""
    result: dict[str, list[float]] = {"cold_s": [], "resident_mb": []}
    for _ in range(rounds):
        result["cold_s"].append(measure_cold_start(models, read_images(images)[0], flags))
    with run_server(models, flags) as service:
        spawn("stroke", service.address, images, ENDURANCE_SECONDS, clients=8)
        result["resident_mb"].append(service.resident_mb())
    return result


def measure(plan: Plan, precisions: Sequence[str], rounds: int) -> dict[str, Any]:
    """All rounds of the bundled model."""
    images = read_images(plan.images)
    series = {precision: Series() for precision in precisions}
    bare = {precision: load_bare(plan.models, precision) for precision in precisions}
    flags = {precision: [*server_flags(plan.models, precision), *plan.flags] for precision in precisions}
    helps: list[float] = []
    with ExitStack() as stack:
        services = {
            precision: stack.enter_context(run_server(plan.models, flags[precision])) for precision in precisions
        }
        for number in range(rounds):
            started = time.monotonic()
            helps.append(measure_help())
            for precision in precisions:
                series[precision].cold_s.append(measure_cold_start(plan.models, images[0], flags[precision]))
                measure_round(plan, precision, bare[precision], services[precision], series[precision], number)
            say(f"round {number + 1} of {rounds}: {time.monotonic() - started:.0f} s")
    return {
        "precisions": {precision: asdict(found) for precision, found in series.items()},
        "client_help_s": helps,
    }


def say(text: str) -> None:
    """Progress, on standard error so that the report alone is on standard output."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints or writes the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=(__doc__ or "").splitlines()[0])
    add_common_options(parser, rounds=5, seconds=2.0)
    parser.add_argument("--clients", type=split_numbers(int), default=[1, 2, 4, 8], help="default: 1,2,4,8")
    parser.add_argument(
        "--loads",
        type=split_numbers(float),
        default=[0.2, 0.4, 0.6, 0.8, 0.9],
        help="offered loads of the open loop, as shares of the limit (default: 0.2,0.4,0.6,0.8,0.9)",
    )
    parser.add_argument("--precisions", help="such as int8,fp32 (default: all that the model has)")
    parser.add_argument("--flags", default="", help="further flags of the server, such as '--profile throughput'")
    parser.add_argument(
        "--resnet50", action="store_true", help="start and memory of ResNet-50 too, which is made if it is not there"
    )
    options = parser.parse_args(argv)
    flags = options.flags.split()
    plan = Plan(options.models, options.images, options.clients, options.loads, options.seconds, flags)
    precisions = options.precisions.split(",") if options.precisions else list_precisions(options.models)
    further = [make_resnet50()] if options.resnet50 else []

    section = {
        "machine": describe_machine(),
        "settings": {
            **describe_images(options.images),
            **describe_model(options.models),
            "rounds": options.rounds,
            "seconds": options.seconds,
            "flags": flags,
        },
        **measure(plan, precisions, options.rounds),
        "further": {
            f"{'+'.join(list_folders(models))} {precision}": measure_model(
                models, options.images, [*server_flags(models, precision), *flags], options.rounds
            )
            for models in further
            for precision in list_precisions(models)
        },
        "installed_mb": measure_installed_mb(ROOT / ".venv-serve"),
    }
    print(publish("serving", section, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
