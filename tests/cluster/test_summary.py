"""What people and programs see of a run; without a cluster, as far as nothing is to be judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.archive.command import describe
from cluster.archive.judge import Judge
from cluster.archive.parts import write_part
from cluster.progress import Progress
from tests.cluster.archives import make_archive, make_job, make_models
from tests.cluster.test_command import run_cluster

SUMMARY = {
    "files": 1204,
    "labels": {"normal": 1000, "stroke": 200},
    "not_analysed": {"INSUFFICIENT_QUALITY": 3},
    "failed": {"IMAGE_TRUNCATED": 1},
    "missing": 96,
    "left_out": {"link": 2, ".txt file": 1},
    "model": "tiny",
    "version": "1",
    "out": "results",
    "partitions": 2,
    "skipped_partitions": 1,
    "seconds": 75.2,
}


def test_the_summary_says_what_came_of_all_files() -> None:
    """Those included that nobody judged."""
    assert describe(SUMMARY).splitlines() == [
        "1,204 files in 1:15 by tiny 1: results",
        "  1 of 2 partitions were finished before",
        "  1,000 normal",
        "  200 stroke",
        "  3 not analysed, INSUFFICIENT_QUALITY",
        "  1 not judged: IMAGE_TRUNCATED",
        "  left out: 2 links, 1 .txt file",
        "  96 files are still to be judged",
    ]


def test_progress_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By what this run has done; what an earlier one did took no time."""
    now = 100.0
    monkeypatch.setattr("cluster.progress.time.monotonic", lambda: now)
    progress = Progress(skipped=500)

    now += 1
    progress.note("judging", 510, 1000)
    now += 59
    progress.note("judging", 600, 1000)

    assert capsys.readouterr().err == "judging: 600/1,000 files (60 %), 4:00 left\n"


def test_a_finished_run_needs_no_cluster(tmp_path: Path) -> None:
    """It says again what has come of the files, with the same exit code."""
    archive, models, out = make_archive(tmp_path), make_models(tmp_path), tmp_path / "out"
    job = make_job(archive, models, out)
    judge = Judge(job)
    write_part(job.out, job.plan, 0, judge.judge(0), judge.schema)

    arguments = ("score", str(archive), "--out", str(out), "--models", str(models), "--cache", "off", "--json")
    result = run_cluster(*arguments)

    summary = json.loads(result.stdout)
    assert (result.returncode, summary["files"], summary["skipped_partitions"], summary["missing"]) == (1, 16, 1, 0)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("archive", "models", "line"),
    [
        ("nowhere", "models", "nowhere: cannot be read (No such file or directory)"),
        ("models", "models", "models: has no PNG, JPEG or DICOM files"),
        ("archive", "nowhere", "nowhere"),
        ("what://ever", "models", "what://ever: cannot be opened"),
    ],
)
def test_what_cannot_be_judged_is_one_line_and_status_2(tmp_path: Path, archive: str, models: str, line: str) -> None:
    """And no results are begun."""
    make_archive(tmp_path)
    make_models(tmp_path)
    source = archive if "://" in archive else str(tmp_path / archive)

    arguments = ("--out", str(tmp_path / "out"), "--models", str(tmp_path / models), "--cache", "off")
    result = run_cluster("score", source, *arguments)

    assert (result.returncode, result.stdout) == (2, "")
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("out/*"))


def test_another_model_is_refused_with_what_the_run_began_with(tmp_path: Path) -> None:
    """Results of two models in one folder would be worth nothing."""
    archive, models, out = make_archive(tmp_path), make_models(tmp_path), tmp_path / "out"
    make_job(archive, models, out)

    arguments = ("score", str(archive), "--out", str(out), "--models", str(models), "--cache", "off")
    result = run_cluster(*arguments, "--checks", "off")

    assert result.returncode == 2
    assert "was begun with checks on, and this run has off" in result.stderr
