"""Many senders at the same time, by dcmtk's storescu: each study has its results, and nothing stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.dicom.gateway import find_storescu, main
from tests.fakes import write_model
from tests.studies import STUDY_SPEC, make_series


def test_every_study_of_many_senders_has_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The small form of ``python -m bench.dicom.gateway --studies 200``."""
    if not find_storescu():
        pytest.skip("dcmtk's storescu is not installed here: many senders are not tested")
    write_model(tmp_path / "models", STUDY_SPEC)
    (tmp_path / "study").mkdir()
    for number, file in enumerate(make_series(8)):
        (tmp_path / "study" / f"{number}.dcm").write_bytes(file)

    flags = {"--study": tmp_path / "study", "--models": tmp_path / "models", "--slices": 8, "--studies": 12}
    assert main([str(word) for flag in flags.items() for word in flag] + ["--senders", "4"]) == 0
    assert capsys.readouterr().out.startswith("12 studies of 8 slices in ")


def test_bench_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no dcmtk."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit) as stopped:
        main([])

    assert stopped.value.code == 2
    assert "apt install dcmtk" in capsys.readouterr().err
