"""``make bench``: how much of the machine the server turns into answers, what it costs in memory, how fast it starts.

Everything is measured against the raw limit, a bare loop of decode and ``run``, in rounds that take turns within one
run: absolute figures drift from minute to minute on shared machines, ratios do not. The server and its clients share
the processors, as they do on a small box.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.images import read_images
from bench.processes import ROOT, Service, measure_cold_start, measure_installed_mb, run_server
from bench.report.figures import describe_latencies
from bench.report.machine import describe_machine, say
from bench.report.page import publish
from bench.serving.limit import measure_run_ms, run_bare
from bench.serving.load import spawn
from bench.serving.peak import measure_peak
from bench.serving.resnet50 import make_resnet50
from bench.serving.settings import BenchOptions, describe_images, describe_model
from bench.serving.variants import list_precisions, load_bare, server_flags
from server.flags import LineParser, parse_settings, setting
from server.machine.processors import count_processors
from server.models.repository import list_folders
from server.models.runtime import OnnxModel
from server.process.children import run, run_main

ENDURANCE_SECONDS = 2.0
"""How long a further model is asked before its memory is read."""


@dataclass(frozen=True)
class ServingOptions(BenchOptions):
    """What is measured in each round."""

    clients: tuple[int, ...] = setting((1, 2, 4, 8), "clients of closed loops", least=1, most=1000, separator=",")
    loads: tuple[float, ...] = setting(
        (0.2, 0.4, 0.6, 0.8, 0.9),
        "offered loads of the open loop, as shares of the limit that was measured in the same round",
        least=0.001,
        most=100,
        separator=",",
    )
    precisions: tuple[str, ...] = setting((), "such as int8,fp32 (default: all that the model has)", separator=",")
    flags: str = setting("", "further flags of the server, such as '--profile throughput'")
    resnet50: bool = setting(False, "start and memory of ResNet-50 too, which is made if it is not there")


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
    return {**describe_latencies(load.latencies_ms), "rate": load.rate, "cpu_ms": cpu_ms}


def measure_open(service: Service, images: Path, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """One open loop at ``rate`` requests a second."""
    load = spawn("stroke", service.address, images, seconds, rate=rate, seed=seed)
    return {**describe_latencies(load.latencies_ms), "offered": rate, "failures": load.failures}


def measure_help() -> float:
    """Seconds of ``python -m client --help``."""
    started = time.monotonic()
    run([sys.executable, "-m", "client", "--help"], cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


def measure_round(
    options: ServingOptions, precision: str, model: OnnxModel, service: Service, series: Series, number: int
) -> None:
    """One round of one precision: the limit and the server, backwards in every other round: drift favours no side."""
    turn = -1 if number % 2 else 1
    images = read_images(options.images)
    series.peak_gops.append(measure_peak(options.seconds / 2)[precision])
    series.run_ms.append(measure_run_ms(model, images, options.seconds / 4))
    steps = [("bare", threads) for threads in sorted({1, count_processors()})]
    steps += [("clients", clients) for clients in options.clients]
    for kind, count in steps[::turn]:
        if kind == "bare":
            series.bare.setdefault(str(count), []).append(measure_bare(model, images, count, options.seconds))
        else:
            figures = measure_clients(service, options.images, count, options.seconds)
            series.clients.setdefault(str(count), []).append(figures)
    limit = series.bare[str(count_processors())][-1]["rate"]
    for load in options.loads[::turn]:
        figures = measure_open(service, options.images, load * limit, options.seconds, seed=number)
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


def measure(options: ServingOptions, precisions: Sequence[str]) -> dict[str, Any]:
    """All rounds of the bundled model."""
    images = read_images(options.images)
    series = {precision: Series() for precision in precisions}
    bare = {precision: load_bare(options.models, precision) for precision in precisions}
    flags = {precision: [*server_flags(options.models, precision), *options.flags.split()] for precision in precisions}
    helps: list[float] = []
    with ExitStack() as stack:
        services = {
            precision: stack.enter_context(run_server(options.models, flags[precision])) for precision in precisions
        }
        for number in range(options.rounds):
            started = time.monotonic()
            helps.append(measure_help())
            for precision in precisions:
                series[precision].cold_s.append(measure_cold_start(options.models, images[0], flags[precision]))
                measure_round(options, precision, bare[precision], services[precision], series[precision], number)
            say(f"round {number + 1} of {options.rounds}: {time.monotonic() - started:.0f} s")
    return {
        "precisions": {precision: asdict(found) for precision, found in series.items()},
        "client_help_s": helps,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints or writes the report."""
    parser = LineParser("python -m bench.serving", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, ServingOptions, argv)
    flags = options.flags.split()
    precisions = options.precisions or tuple(list_precisions(options.models))
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
        **measure(options, precisions),
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
    run_main(main)
