"""How many synthetic slices a second one process draws, and all processors together."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from bench.report.tables import Budget
from bench.training.data import FOLDER
from bench.training.page import Series, make_section
from server.machine.processors import count_processors

FLOOR = 50.0
"""Slices of 256 x 256 a second and core."""

COUNTS = {"one": 200, "all": 600}
"""Slices of one measurement; more with processes, whose start (a second) would weigh on few."""


def measure_phantom(rounds: int) -> dict[str, Any]:
    """Draws and writes PNG files; one process and all processors take turns."""
    processors = count_processors()
    draw_slices(20, 1)  # what is loaded and cached at the first slices
    wall: list[float] = []
    cpu: list[float] = []
    together: list[float] = []
    for turn in range(rounds):
        seconds, busy = draw_slices(COUNTS["one"], 1, seed=turn)
        wall.append(COUNTS["one"] / seconds)
        cpu.append(COUNTS["one"] / busy)
        together.append(COUNTS["all"] / draw_slices(COUNTS["all"], processors, seed=turn)[0])
    return make_section(
        [
            f"`python -m training phantom` at 256 x 256, PNG and masks included: {COUNTS['one']} slices in one "
            f"process, {COUNTS['all']} with {processors} processes, their start included. A second of CPU time is what "
            "one core gives where nobody else uses it."
        ],
        {
            "one process": Series("slices/s", wall, ".1f"),
            "one process, by its CPU time": Series("slices/s", cpu, ".1f"),
            f"{processors} processes": Series("slices/s", together, ".1f"),
        },
        [Budget("one process", FLOOR, wall, unit=" slices/s", form=".1f")],
    )


def draw_slices(count: int, processes: int, seed: int = 0) -> tuple[float, float]:
    """Returns seconds, and CPU seconds of this process, for a data set that is thrown away."""
    from training.phantom.dataset import write_dataset

    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        started, busy = time.perf_counter(), time.process_time()
        write_dataset(Path(folder) / "slices", count, seed, processes=processes)
        return time.perf_counter() - started, time.process_time() - busy
