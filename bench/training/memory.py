"""Peak memory of a whole training run, of an evaluation and an audit, and of each with ten times the slices."""

from __future__ import annotations

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
from server.process.children import start

COUNTS = (2_000, 20_000)
CEILING_MB = 100.0
"""How much more the peak may be with ten times the slices. Their decoded pixels alone are 1,180 MB (2**20) more."""

MOST_ROUNDS = 3

# Few steps: most slices are held out, which takes a forward pass where training takes three.
FLAGS = ("--epochs", "1", "--batch-size", "32", "--validation", "0.45", "--test", "0.45")
MODEL = "models/stroke-cnn/4/model.int8.onnx"
PEOPLE = "--one-image-per-patient"


def measure_memory(rounds: int) -> dict[str, Any]:
    """Runs each command on few and on many slices in turn, ``MOST_ROUNDS`` times at most: it takes minutes."""
    rounds = min(rounds, MOST_ROUNDS)
    precision = list_precisions(describe_machine()["instructions"])[-1]
    commands = {
        "training": ("--data", "DATA", "--out", "OUT", "--model", "cnn", *FLAGS, PEOPLE, "--precision", precision),
        "evaluate": ("evaluate", MODEL, "--data", "DATA", "--out", "OUT", PEOPLE),
        "audit": ("audit", "DATA", "--out", "OUT", PEOPLE),
    }
    series: dict[str, Series] = {}
    budgets = []
    few, many = COUNTS
    for name, words in commands.items():
        turns = [{count: run_command(find_noise(count), words) for count in COUNTS} for _ in range(rounds)]
        for count in COUNTS:
            peaks, seconds = zip(*(turn[count] for turn in turns), strict=True)
            series[f"{name}, {count:,} slices: peak"] = Series("MB", peaks, ".0f")
            series[f"{name}, {count:,} slices: time"] = Series("s", seconds, ".0f")
        more = [turn[many][0] - turn[few][0] for turn in turns]
        series[f"{name}: more for ten times the slices"] = Series("MB", more, ".0f")
        what = f"{name}: peak of {many:,} slices above that of {few:,}"
        budgets.append(Budget(what, CEILING_MB, more, at_least=False, unit=" MB", form=".0f"))
    lines = ", ".join(f"`python -m training {' '.join(words)}`" for words in commands.values())
    about = (
        f"{lines}: whole commands with all that they write, on PNG files of noise, decoded to 256 x 256. Peak: VmHWM "
        "of /proc/PID/status in MB (2^20 bytes). What TensorFlow takes for the same slices varies from run to run."
    )
    return make_section([about], series, budgets)


def run_command(data: Path, words: Sequence[str]) -> tuple[float, float]:
    """Returns peak memory in MB (2**20 bytes) and seconds of a command whose results are thrown away.

    Args:
        data: what stands for DATA.
        words: of the command, after ``python -m training``; a folder that is not there stands for OUT.

    Raises:
        SystemExit: it failed; its last words are told.
    """
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        places = {"DATA": str(data), "OUT": str(Path(folder) / "out")}
        command = [sys.executable, "-m", "training", *(places.get(word, word) for word in words)]
        log = Path(folder) / "log"
        started = time.monotonic()
        with log.open("wb") as stream:
            process = start(command, cwd=ROOT, stdout=stream, stderr=stream)
            peak = watch_peak(process)
        if process.returncode:
            raise SystemExit(f"bench: {' '.join(command)} failed: {log.read_text('utf-8', 'replace')[-2000:]}")
        return peak, time.monotonic() - started
