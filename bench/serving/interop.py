"""``python -m bench.serving.interop``: Triton's perf_analyzer beside this project's own bench, on the same server.

Both are closed loops of as many requests; they take turns within a round. perf_analyzer calls ModelInfer of the Open
Inference Protocol, over gRPC and over HTTP, with the encoded images of the same folder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.images import read_images
from bench.processes import ROOT, find_ports, run_server
from bench.report.interop import CLIENTS, OURS, THEIRS, THEIRS_HTTP, publish_interop
from bench.report.machine import describe_machine, say
from bench.serving.perf_analyzer import LibraryMissingError, Until, run_perf_analyzer, start_command
from bench.serving.settings import BenchOptions, describe_images, describe_model
from bench.serving.variants import list_precisions, server_flags
from server.flags import LineParser, parse_settings, setting
from server.models.repository import find_only_model
from server.process.children import run, run_main

Loop = Callable[[int], dict[str, float]]
"""Number of clients → figures of a closed loop."""


@dataclass(frozen=True)
class InteropOptions(BenchOptions):
    """What is measured."""

    seconds: float = setting(6.0, "length of one measurement", least=1.5, most=3600)
    out: Path | None = setting(None, "folder for interop.md, of which only the table changes, and interop.json")


def run_own(address: str, images: Path, seconds: float, clients: int) -> dict[str, float]:
    """``python -m client bench``, as a user calls it."""
    command = [sys.executable, "-m", "client", "bench", str(images), "--server", address, "--json"]
    command += ["--clients", str(clients), "--seconds", str(seconds)]
    done = run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + 10 * seconds, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"python -m client bench failed:\n{done.stderr[-2000:]}")
    (found,) = json.loads(done.stdout)["runs"]
    times = {f"{percentile}_ms": found["latency_ms"][percentile] for percentile in ("p50", "p90", "p99")}
    return {"rate": found["images_per_s"], **times}


def measure(options: InteropOptions) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Figures of each round by load generator and number of clients; turns are backwards in every other round."""
    images, model = read_images(options.images), find_only_model(options.models).parent.name
    (port,) = find_ports(1)
    web = f"127.0.0.1:{port}"
    flags = [*server_flags(options.models, list_precisions(options.models)[0]), "--http", web]
    with ExitStack() as stack:
        service = stack.enter_context(run_server(options.models, flags))
        infer = partial(run_perf_analyzer, model=model, images=images, until=Until(options.seconds))
        loops: dict[str, Loop] = {
            OURS: lambda count: run_own(service.address, options.images, options.seconds, count),
            THEIRS: lambda count: infer(service.address, clients=count),
            THEIRS_HTTP: lambda count: infer(web, clients=count, protocol="http"),
        }
        found: dict[str, dict[str, list[dict[str, float]]]] = {
            name: {str(count): [] for count in CLIENTS} for name in loops
        }
        for number in range(options.rounds):
            started = time.monotonic()
            for count in CLIENTS:
                for name in list(loops)[:: -1 if number % 2 else 1]:
                    found[name][str(count)].append(loops[name](count))
            say(f"round {number + 1} of {options.rounds}: {time.monotonic() - started:.0f} s")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints or writes the report."""
    parser = LineParser("python -m bench.serving.interop", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, InteropOptions, argv)
    try:
        start_command()
    except (FileNotFoundError, LibraryMissingError) as error:
        raise SystemExit(f"bench: {error}") from None
    section: dict[str, Any] = {
        "machine": describe_machine(),
        "settings": {
            **describe_images(options.images),
            **describe_model(options.models),
            "precision": list_precisions(options.models)[0],
            "rounds": options.rounds,
            "seconds": options.seconds,
        },
        "loops": measure(options),
    }
    print(publish_interop(section, options.out))
    return 0


if __name__ == "__main__":
    run_main(main)
