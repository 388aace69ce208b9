"""The budgets of training: the page about them, and what the benches read, without TensorFlow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.processes import read_peak, watch_peak
from bench.report.tables import Budget
from bench.training import data as training_data
from bench.training import input as training_input
from bench.training.data import CLASSES, make_once, write_noise
from bench.training.evaluation import measure_union
from bench.training.input import list_precisions, time_steps
from bench.training.page import TITLES, Series, make_section, publish_training, render_page, render_section
from tests.fakes import ROOT, run_module
from tests.test_bench_report import MACHINE


def make_figures(*values: float) -> dict[str, Any]:
    """A section with one quantity that has a ceiling of 2 s."""
    section = make_section(
        ["One thing beside another."],
        {"step": Series("s", values)},
        [Budget("step", 2.0, values, at_least=False, unit=" s")],
    )
    return {**section, "machine": MACHINE}


def test_committed_page_is_that_of_the_committed_figures() -> None:
    """Nobody has edited one of the two by hand, and every section is one that a bench writes."""
    document = json.loads((ROOT / "docs" / "training.json").read_text("utf-8"))

    assert (ROOT / "docs" / "training.md").read_text("utf-8") == render_page(document)
    assert document.keys() <= TITLES.keys()


def test_every_bench_has_a_place_on_the_page() -> None:
    """A section without a title would be measured and never shown."""
    error = run_module("bench.training", "--only", "none").stderr
    assert (found := re.search("--only must be one of (.+), got 'none'", error)), error
    assert set(found[1].split(", ")) <= TITLES.keys()


def test_section_says_what_was_compared_on_what_machine() -> None:
    """With the median, its spread and the number of rounds, and whether the target was met."""
    text = render_section("input", make_figures(1.0, 4.0, 3.0))

    assert "A Processor" in text
    assert "One thing beside another." in text
    assert "| step | 3.00 (1.00 to 4.00) s | 3 |" in text
    assert "| step | at most 2 s | 3.00 (1.00 to 4.00) s | missed |" in text


def test_sections_keep_each_other(tmp_path: Path) -> None:
    """A bench replaces its own section alone, and the page has its own order."""
    publish_training("memory", make_figures(1.0), tmp_path)
    publish_training("input", make_figures(1.5), tmp_path)
    publish_training("memory", make_figures(1.75), tmp_path)

    page = (tmp_path / "training.md").read_text("utf-8")
    assert page.index(TITLES["input"]) < page.index(TITLES["memory"])
    assert json.loads((tmp_path / "training.json").read_text("utf-8"))["memory"]["series"]["step"]["values"] == [1.75]
    assert "1.50 (1.50 to 1.50) s" in page


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short try does not replace the published figures."""
    monkeypatch.chdir(tmp_path)

    assert publish_training("input", make_figures(1.0), None).startswith("## ")
    assert not list(tmp_path.iterdir())


def test_bfloat16_is_measured_only_where_the_processor_is_fast_in_it() -> None:
    """Elsewhere it is emulated."""
    assert list_precisions(["avx2"]) == ["float32"]
    assert list_precisions(["avx2", "avx512_bf16"]) == ["float32", "mixed_bfloat16"]


class SlowNetwork:
    """Takes 20 ms for each step."""

    def train_on_batch(self, images: object, targets: object, sample_weight: object) -> None:
        time.sleep(0.02)


def test_wait_and_step_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that takes 10 ms a batch where the step takes 20 is a third of the time; the warm-up does not count."""
    monkeypatch.setattr(training_input, "WARM_UP", 2)
    monkeypatch.setattr(training_input, "STEPS", 5)

    def make_batches() -> Any:
        for index in range(7):
            time.sleep(1.0 if index == 0 else 0.01)
            yield index, index, index

    waited, trained = time_steps(SlowNetwork(), make_batches())

    assert 0.05 <= waited < 0.5
    assert 0.1 <= trained < 0.9


def test_inference_in_several_threads_counts_once() -> None:
    """Two calls that overlap, one within another, and one apart: 0 to 3 and 5 to 6."""
    assert measure_union([(5, 6), (0, 2), (1, 3), (1.5, 2.5)]) == 4
    assert measure_union([]) == 0


def test_noise_slices_differ_from_each_other(tmp_path: Path) -> None:
    """Copies would be joined into one group, and the run would not see as many slices as it is said to."""
    write_noise(tmp_path, 10)

    files = sorted(tmp_path.rglob("*.png"))
    small = [np.asarray(Image.open(file).resize((8, 8)), float).ravel() for file in files]
    assert [sum(file.parent.name == label for file in files) for label in CLASSES] == [5, 5]
    likeness = np.corrcoef(small) - 2 * np.eye(10)
    assert likeness.max() < 0.8


def test_slices_are_made_once_and_only_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted bench has left is made again."""
    monkeypatch.setattr(training_data, "FOLDER", tmp_path)
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "half").touch()
    made: list[Path] = []

    def make(folder: Path) -> None:
        folder.mkdir()
        made.append(folder)

    assert make_once("x", make) == make_once("x", make) == tmp_path / "x"
    assert len(made) == 1
    assert not list((tmp_path / "x").iterdir())


def test_peak_is_that_of_the_process_itself() -> None:
    """What was taken and given back counts, and what the parent holds does not."""
    held = np.ones(40_000_000)  # 305 MB of this process
    code = "import time; block = bytearray(60_000_000); del block; time.sleep(0.5)"
    peak = watch_peak(subprocess.Popen([sys.executable, "-c", code]))

    assert held.nbytes / 2**20 > 300
    assert 60 < peak < 150


def test_a_process_that_has_ended_has_no_peak() -> None:
    """It may end between two looks."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()

    assert read_peak(process.pid) == 0
