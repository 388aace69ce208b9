"""The bench of studies: both sides judge the same slices, and ratios are taken round by round."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.dicom.study import SIDES, measure, read_study
from bench.processes import run_server
from bench.report.study import render_study
from tests.fakes import write_model
from tests.studies import STUDY_SPEC, make_series
from tests.test_bench_report import MACHINE


def test_sides_take_turns_on_the_same_slices(tmp_path: Path) -> None:
    """Files are sent again where there are too few."""
    models, folder = tmp_path / "models", tmp_path / "study" / "series"
    write_model(models, STUDY_SPEC)
    folder.mkdir(parents=True)
    for number, file in enumerate(make_series(8)):
        (folder / f"{number}.dcm").write_bytes(file)
    files = read_study(tmp_path / "study", 10)
    with run_server(models) as service:
        sides = measure(service, files, rounds=2)

    assert len(files) == 10
    assert sides.keys() == SIDES.keys()
    assert all(len(values) == 2 for side in sides.values() for values in side.values())


def test_folder_without_a_study_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no \*\.dcm"):
        read_study(tmp_path, 10)


def test_section_judges_the_ratio() -> None:
    """A machine that slows down between rounds changes nothing."""
    sides = {"study": {"seconds": [1.2, 2.4], "cpu_s": [1.1, 2.2]}, "batches": {"seconds": [1, 2], "cpu_s": [1, 2]}}
    page = render_study({"machine": MACHINE, "slices": 300, "slice_kb": 525.0, "rounds": 2, "sides": sides})

    assert (
        "| PredictStudy / PredictBatches, the server's CPU time | at most 1.3 x | 1.10 (1.10 to 1.10) x | met |" in page
    )
    assert "300 slices" in page
