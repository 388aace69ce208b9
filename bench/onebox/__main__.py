"""``python -m bench.onebox``: one server process or two on the same processors, and gRPC's kinds of server.

All take turns in every round, each loaded by callers in a process of their own that shares the processors with it, and
beside them the bare loop of decode and ``run``. Processors are bound as by ``taskset``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.images import read_images
from bench.onebox.sides import SIDES, Group
from bench.report.machine import describe_machine, say
from bench.report.processes import CALLERS, Rounds, publish_processes
from bench.serving.closed import measure_closed
from bench.serving.limit import run_bare
from bench.serving.settings import BenchOptions, describe_images, describe_model
from bench.serving.variants import list_precisions, load_bare, server_flags
from server.flags import LineParser, parse_settings, setting
from server.models.runtime import OnnxModel
from server.process.children import run_main


@dataclass(frozen=True)
class ProcessesOptions(BenchOptions):
    """What is measured."""

    rounds: int = setting(9, "rounds", least=1, most=1000)
    precision: str = setting("", "such as fp32 (default: the one that is preferred)")
    processors: int = setting(2, "processors to use, of those that there are", least=1, most=1024)
    out: Path | None = setting(None, "folder for processes.md, of which only the figures change, and processes.json")


def bind_processors(count: int) -> None:
    """Leaves this process, and all that it starts, so many processors.

    Raises:
        SystemExit: there are not so many.
    """
    there = sorted(os.sched_getaffinity(0))
    if len(there) < count:
        raise SystemExit(f"bench: --processors {count}: this process may use {len(there)}")
    os.sched_setaffinity(0, there[:count])


def measure_group(group: Group, images: Path, seconds: float, callers: int) -> dict[str, float]:
    """One closed loop, with what it took of processors and memory."""
    switches, loop, started = group.count_switches(), group.read_loop_seconds(), group.cpu_seconds()
    figures = measure_closed(group, images, seconds, callers)
    # By the CPU time of all and that for an image: connecting and warming up are images too.
    calls = 1000 * (group.cpu_seconds() - started) / figures["server_cpu_ms"]
    return {
        **figures,
        "switches": (group.count_switches() - switches) / calls,
        "loop_cpu_ms": 1000 * (group.read_loop_seconds() - loop) / calls,
        "pss_mb": group.read_pss_mb(),
    }


def measure_bare(model: OnnxModel, images: Sequence[bytes], options: ProcessesOptions) -> dict[str, float]:
    """The bare loop on the same processors."""
    loop = run_bare(model, images, options.processors, options.seconds)
    return {"cpu_ms": loop.cpu_ms, "rate": len(loop.latencies_ms) / loop.seconds}


def measure(options: ProcessesOptions, precision: str) -> dict[str, Any]:
    """Figures of each round by side and number of callers; turns are backwards in every other round."""
    flags, images = server_flags(options.models, precision), read_images(options.images)
    model = load_bare(options.models, precision)
    bare: Rounds = []
    sides: dict[str, dict[str, Rounds]] = {name: {str(callers): [] for callers in CALLERS} for name in SIDES}
    with ExitStack() as stack:
        groups = {name: stack.enter_context(run(options.models, flags)) for name, run in SIDES.items()}
        for number in range(options.rounds):
            started = time.monotonic()
            bare.append(measure_bare(model, images, options))
            for callers in CALLERS:
                for name in list(SIDES)[:: -1 if number % 2 else 1]:
                    figures = measure_group(groups[name], options.images, options.seconds, callers)
                    sides[name][str(callers)].append(figures)
            say(f"round {number + 1} of {options.rounds}: {time.monotonic() - started:.0f} s")
    return {"bare": bare, "sides": sides}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints or writes the report."""
    parser = LineParser("python -m bench.onebox", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, ProcessesOptions, argv)
    bind_processors(options.processors)
    precision = options.precision or list_precisions(options.models)[0]
    section: dict[str, Any] = {
        "machine": describe_machine(),
        "settings": {
            **describe_images(options.images),
            **describe_model(options.models),
            "precision": precision,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "processors": options.processors,
        },
        **measure(options, precision),
    }
    print(publish_processes(section, options.out))
    return 0


if __name__ == "__main__":
    run_main(main)
