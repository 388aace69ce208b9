"""Peak memory of a whole training run, and of one with ten times the slices."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.processes import ROOT, watch_peak
from bench.report.machine import describe_machine
from bench.report.tables import Budget
from bench.training.data import FOLDER, find_noise
from bench.training.input import list_precisions
from bench.training.page import Series, make_section

COUNTS = (2_000, 20_000)
CEILING_MB = 100.0
"""How much more the peak may be with ten times the slices. Their decoded pixels alone are 1,180 MB (2**20) more."""

# Few steps: most slices are held out, which takes a forward pass where training takes three.
FLAGS = ("--epochs", "1", "--batch-size", "32", "--validation", "0.45", "--test", "0.45", "--one-image-per-patient")


def measure_memory(rounds: int) -> dict[str, Any]:
    """Runs ``python -m training`` on few and on many slices, once each whatever the rounds: peaks hardly vary."""
    few, many = COUNTS
    flags = (*FLAGS, "--precision", list_precisions(describe_machine()["instructions"])[-1])
    runs = {count: run_training(find_noise(count), flags) for count in COUNTS}
    more = runs[many][0] - runs[few][0]
    return make_section(
        [
            f"`python -m training --model cnn {' '.join(flags)}` on PNG files of noise, decoded "
            "to 256 x 256: the whole run with split, fit, evaluation and report. Peak: VmHWM of /proc/PID/status in MB "
            "(2^20 bytes), once each."
        ],
        {
            **{f"{count:,} slices: peak": Series("MB", [peak], ".0f") for count, (peak, _) in runs.items()},
            **{f"{count:,} slices: run": Series("s", [seconds], ".0f") for count, (_, seconds) in runs.items()},
            "more for ten times the slices": Series("MB", [more], ".0f"),
        },
        [
            Budget(
                f"peak of {many:,} slices above that of {few:,}",
                CEILING_MB,
                [more],
                at_least=False,
                unit=" MB",
                form=".0f",
            )
        ],
    )


def run_training(data: Path, flags: Sequence[str]) -> tuple[float, float]:
    """Returns peak memory in MB (2**20 bytes) and seconds of a training run whose results are thrown away.

    Raises:
        SystemExit: the run failed; its last words are told.
    """
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        command = [sys.executable, "-m", "training", "--data", str(data), "--out", str(Path(folder) / "run"), *flags]
        log = Path(folder) / "log"
        started = time.monotonic()
        with log.open("wb") as stream:
            process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream)
            peak = watch_peak(process)
        if process.returncode:
            raise SystemExit(f"bench: the training run failed: {log.read_text('utf-8', 'replace')[-2000:]}")
        return peak, time.monotonic() - started
