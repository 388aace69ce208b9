"""``python -m bench.serving.client``: what ``predict_many`` reaches of the machine, and what it costs.

Server and client share the processors. A round is: the bare loop of decode and ``run`` on all of them, the client over
many slices, the bare loop again. Its share is of the mean of the two, so that drift within the round favours no side.
The client's own cost is taken at a server that judges nothing, too, with and without several images in a message, and
so is its memory over a long run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.images import read_images
from bench.processes import Service, read_busy_seconds, run_server
from bench.report.machine import describe_machine, say
from bench.report.page import publish
from bench.serving.client_load import ClientLoad, spawn_client
from bench.serving.limit import run_bare
from bench.serving.noop_server import run_noop_server
from bench.serving.settings import BenchOptions, describe_images, describe_model
from bench.serving.variants import list_precisions, load_bare, server_flags
from server.flags import LineParser, parse_settings, setting
from server.machine.processors import count_processors
from server.models.runtime import OnnxModel
from server.process.children import run_main


@dataclass(frozen=True)
class ClientOptions(BenchOptions):
    """What is measured."""

    count: int = setting(1000, "slices of one run", least=1, most=10_000_000)
    in_flight: int | None = setting(None, "as predict_many takes it (default: its own)", least=1, most=10_000)
    noise_kb: float = setting(100.0, "size of the large images, in kilobytes", least=1, most=100_000, metavar="KB")
    endurance: int = setting(0, "predictions of the long run; 0: none", least=0, most=1_000_000_000)


def measure_limit(model: OnnxModel, images: Sequence[bytes], seconds: float) -> dict[str, float]:
    """One bare loop on all processors, and the share of them that other processes took meanwhile."""
    processors = count_processors()
    started, busy = time.monotonic(), read_busy_seconds() - time.process_time()
    loop = run_bare(model, images, processors, seconds)
    others = (read_busy_seconds() - time.process_time() - busy) / (time.monotonic() - started) / processors
    return {"rate": len(loop.latencies_ms) / loop.seconds, "cpu_ms": loop.cpu_ms, "others": max(0.0, others)}


def measure_share(
    model: OnnxModel, service: Service, folder: Path, *, seconds: float, count: int, in_flight: int | None
) -> dict[str, float]:
    """One round: the client between two bare loops."""
    images = read_images(folder)
    before = measure_limit(model, images, seconds)
    server_cpu = service.cpu_seconds()
    load = spawn_client(service.address, folder, count, in_flight)
    server_cpu = service.cpu_seconds() - server_cpu
    after = measure_limit(model, images, seconds)
    return {
        **describe_cost(load),
        "rate": load.count / load.seconds,
        "limit": (before["rate"] + after["rate"]) / 2,
        "bare_cpu_ms": (before["cpu_ms"] + after["cpu_ms"]) / 2,
        "others": (before["others"] + after["others"]) / 2,
        "server_cpu_ms": 1000 * server_cpu / (load.count + 1),  # one before the run, to connect
    }


def describe_cost(load: ClientLoad) -> dict[str, float]:
    """What a run cost the client's process.

    Raises:
        SystemExit: an image failed; then the figures are of something else.
    """
    if load.failures:
        raise SystemExit(f"bench: {load.failures} of {load.count} images failed; nothing can be said")
    return {"cpu_ms": load.cpu_ms, "extra_mb": load.peak_mb - load.idle_mb}


def describe_endurance(load: ClientLoad) -> dict[str, float]:
    """Growth of resident memory after a tenth of a long run, by when everything has been allocated once."""
    describe_cost(load)
    settled = load.resident_mb[len(load.resident_mb) // 10]
    return {
        "count": load.count,
        "idle_mb": load.idle_mb,
        "settled_mb": settled,
        "end_mb": load.resident_mb[-1],
        "growth_mb": max(load.resident_mb) - settled,
    }


def measure(options: ClientOptions, precision: str) -> dict[str, Any]:
    """All rounds."""
    model = load_bare(options.models, precision)
    flags = server_flags(options.models, precision)
    section: dict[str, Any] = {"share": [], "noise": [], "noise_noop": [], "noise_singles": []}
    with (
        run_server(options.models, flags) as service,
        run_noop_server() as noop,
        run_noop_server("--singles") as singles,
    ):
        for number in range(options.rounds):
            section["share"].append(
                measure_share(
                    model,
                    service,
                    options.images,
                    seconds=options.seconds,
                    count=options.count,
                    in_flight=options.in_flight,
                )
            )
            for key, address in (("noise", service.address), ("noise_noop", noop), ("noise_singles", singles)):
                load = spawn_client(address, options.noise_kb, options.count, options.in_flight)
                section[key].append(describe_cost(load))
            say(f"round {number + 1} of {options.rounds}")
        section["endurance"] = None
        if options.endurance:
            say(f"{options.endurance} predictions by one client")
            load = spawn_client(noop, options.noise_kb, options.endurance, options.in_flight)
            section["endurance"] = describe_endurance(load)
    return section


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints or writes the report."""
    parser = LineParser("python -m bench.serving.client", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, ClientOptions, argv)
    precision = list_precisions(options.models)[0]
    section = {
        "machine": describe_machine(),
        "settings": {
            **describe_images(options.images),
            **describe_model(options.models),
            "precision": precision,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "count": options.count,
            "in_flight": options.in_flight,
            "noise_kb": options.noise_kb,
        },
        **measure(options, precision),
    }
    print(publish("client", section, options.out))
    return 0


if __name__ == "__main__":
    run_main(main)
