"""``make bench-training``: the budgets of training, each measured in rounds whose sides take turns.

Some slices are drawn into build/bench first (two minutes), and stay there for the next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report.machine import say
from bench.training.evaluation import measure_evaluation
from bench.training.input import measure_epoch, measure_input
from bench.training.memory import measure_memory
from bench.training.page import publish_training
from bench.training.phantom import measure_phantom
from server.flags import LineParser, parse_settings, setting
from server.process.children import run_main
from server.process.console import silence_tensorflow

# TensorFlow is imported where it is needed: the processes that draw slices import this module, too.
BENCHES: dict[str, Callable[[int], dict[str, Any]]] = {
    "phantom": measure_phantom,
    "input": measure_input,
    "epoch": measure_epoch,
    "evaluation": measure_evaluation,
    "memory": measure_memory,
}
"""What --only takes → what measures it in so many rounds, in the order in which they run."""


@dataclass(frozen=True)
class TrainingOptions:
    """What is measured."""

    only: tuple[str, ...] = setting(tuple(BENCHES), "which", choices=tuple(BENCHES), metavar="NAME")
    rounds: int = setting(3, "rounds; memory has one", least=1, most=1000)
    out: Path | None = setting(None, "folder for training.md and .json (default: only print)")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; each bench as soon as it is done."""
    parser = LineParser("python -m bench.training", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, TrainingOptions, argv)
    with silence_tensorflow():
        import keras  # noqa: F401 - its greetings are over before anything is measured
    for name in options.only:
        started = time.monotonic()
        print(publish_training(name, BENCHES[name](options.rounds), options.out), flush=True)
        say(f"{name}: {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    run_main(main)
