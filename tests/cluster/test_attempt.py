"""A file at which processes die is found, given up, and told; the run goes on, and nothing else is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.archive.attempt import DEATHS, VAIN_DEATHS, Attempt
from cluster.archive.judge import Judge
from cluster.archive.storage import Storage, StorageError
from tests.cluster.archives import drop_measured, judge_alone, make_archive, make_job, make_models, read_parts
from tests.cluster.crashing import DEADLY, PARTITION_FILES
from tests.tracing import ROOT


@pytest.fixture
def out(tmp_path: Path) -> Storage:
    """An empty folder of results."""
    return Storage(str(tmp_path))


def die(out: Storage, *files: int) -> None:
    """An attempt whose process dies: at the last of some files that it takes, or at none."""
    attempt = Attempt(out, 0)
    for number in files:
        attempt.takes(number)


def test_an_attempt_that_ends_leaves_nothing(out: Storage, tmp_path: Path) -> None:
    """Nor does it write anything for each file."""
    with Attempt(out, 0) as attempt:
        (mark,) = tmp_path.iterdir()
        before = mark.read_bytes()
        assert all(attempt.takes(number) for number in range(1000))
        attempt.put_down()
        assert mark.read_bytes() == before

    assert list(tmp_path.iterdir()) == []


def test_a_file_with_which_processes_die_is_given_up(out: Storage) -> None:
    """The first death tells nothing; from then on the file in hand is known. Others are taken as ever."""
    die(out, 0, 1)
    for _ in range(DEATHS):
        die(out, 0, 1)

    with Attempt(out, 0) as attempt:
        assert [attempt.takes(number) for number in range(3)] == [True, False, True]


def test_deaths_at_different_files_give_none_up(out: Storage) -> None:
    """As of machines that are lost."""
    for number in range(20):
        die(out, number)

    with Attempt(out, 0) as attempt:
        assert all(attempt.takes(number) for number in range(20))


def test_deaths_at_no_file_end_the_run(out: Storage) -> None:
    """After some: it would be tried for ever."""
    for _ in range(VAIN_DEATHS):
        die(out)

    with pytest.raises(StorageError, match=f"{VAIN_DEATHS} processes have died at partition 0"):
        Attempt(out, 0)


@pytest.mark.parametrize("left", [b"", b"{"])
def test_half_a_mark_is_a_death(out: Storage, tmp_path: Path, left: bytes) -> None:
    """The machine was lost while it was written."""
    die(out)
    (mark,) = tmp_path.iterdir()
    mark.write_bytes(left)

    die(out, 5)

    assert json.loads(mark.read_bytes()) == {"died_at": [None], "in_hand": 5}


def test_a_file_that_is_given_up_is_a_row(tmp_path: Path) -> None:
    """With what is known of it; the rows beside it are as ever."""
    job = make_job(make_archive(tmp_path), make_models(tmp_path), tmp_path / "out")
    judge = Judge(job)

    rows, usual = judge.judge(0, lambda number: number != 2), judge.judge(0)

    assert rows[2]["reason"] == "PROCESS_DIED"
    assert rows[2]["file_bytes"] == usual[2]["file_bytes"]
    for row in rows + usual:
        row.pop("timings_ms", None)
    assert rows[:2] + rows[3:] == usual[:2] + usual[3:]


def test_files_that_kill_processes_do_not_end_a_run(tmp_path: Path) -> None:
    """On a real cluster: they are rows with their reason, and all others are answered as by a process alone, to the
    bit."""
    archive, models, out = make_archive(tmp_path, count=24), make_models(tmp_path), tmp_path / "out"
    deadly = [archive / "p0" / "0002.png", archive / "p0" / "0004.png"]  # in one partition
    for path in deadly:
        path.write_bytes(path.read_bytes() + DEADLY)

    command = [sys.executable, "-m", "tests.cluster.crashing", str(archive), str(out), str(models)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    summary = json.loads(run.stdout)
    assert (run.returncode, summary["files"], summary["missing"]) == (1, 28, 0), run.stderr
    assert summary["failed"]["PROCESS_DIED"] == 2
    rows = read_parts(out)
    died = [row["file"] for row in rows.to_pylist() if row["reason"] == "PROCESS_DIED"]
    assert sorted(died) == sorted(map(str, deadly))
    kept = [number for number, file in enumerate(rows.column("file").to_pylist()) if file not in died]
    alone = judge_alone(make_job(archive, models, tmp_path / "alone", partition_files=PARTITION_FILES))
    assert drop_measured(rows).take(kept).equals(drop_measured(alone).take(kept))
    assert not list(out.glob(".part-*"))
