"""``python -m bench.phantom``: slices a second that one process of the generator draws and writes, with their masks."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.machine import describe_machine
from bench.report import publish

SIDE = 256


def measure(count: int, rounds: int, size: int = SIDE) -> list[float]:
    """Slices a second of each round, by the wall clock; the first, which makes the textures, does not count."""
    from training.phantom import write_dataset

    rates = []
    for turn in range(rounds + 1):
        with tempfile.TemporaryDirectory(prefix="stroke-bench-") as folder:
            start = time.monotonic()
            write_dataset(Path(folder) / "slices", count, turn, size=size, processes=1)
            rates.append(count / (time.monotonic() - start))
    return rates[1:]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.phantom", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="slices a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for performance.md and .json (default: only print)")
    options = parser.parse_args(argv)
    section = {
        "machine": describe_machine(),
        "count": options.count,
        "rates": measure(options.count, options.rounds),
    }
    print(publish("phantom", section, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
