"""``make bench-training``: the budgets of training, each measured in rounds whose sides take turns.

Some slices are drawn into build/bench first (two minutes), and stay there for the next time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.serving.__main__ import say
from bench.training.evaluation import measure_evaluation
from bench.training.input import measure_epoch, measure_input
from bench.training.memory import measure_memory
from bench.training.page import publish_training
from bench.training.phantom import measure_phantom
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


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; each bench as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES), help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s; memory: one)")
    parser.add_argument("--out", type=Path, help="folder for training.md and .json (default: only print)")
    options = parser.parse_args(argv)
    with silence_tensorflow():
        import keras  # noqa: F401 - its greetings are over before anything is measured
    for name in options.only:
        started = time.monotonic()
        print(publish_training(name, BENCHES[name](options.rounds), options.out), flush=True)
        say(f"{name}: {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
