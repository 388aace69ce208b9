"""What a run has to do is fixed when it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from cluster.archive.judge import Judge
from cluster.archive.parts import find_parts, read_part, remove_left, tally, write_part
from cluster.archive.plan import PLAN_FILE, PlanError, read_plan
from cluster.archive.storage import StorageError
from server.errors import ModelFileError
from tests.cluster.archives import make_archive, make_job, make_models
from tests.fakes import SPEC, build_tiny_model, write_model


def test_partitions_have_all_files_once(tmp_path: Path) -> None:
    """In the order of the walk."""
    job = make_job(make_archive(tmp_path), make_models(tmp_path), tmp_path / "out", partition_files=5)

    listed = [job.plan.list_files(partition) for partition in range(job.plan.partitions)]

    assert [len(files) for files in listed] == [5, 5, 5, 1] == [job.plan.count_files(n) for n in range(4)]
    assert len({file for files in listed for file in files}) == 16 == job.plan.files


def test_the_plan_stays_when_files_come(tmp_path: Path) -> None:
    """Later ones are for another run."""
    archive, models = make_archive(tmp_path), make_models(tmp_path)
    before = make_job(archive, models, tmp_path / "out")
    (archive / "later.png").write_bytes((archive / "p1" / "0001.png").read_bytes())

    after = make_job(archive, models, tmp_path / "out")

    assert (after.plan.files, after.plan.identity) == (before.plan.files, before.plan.identity)


@pytest.mark.parametrize("settings", [{"partition_files": 7}, {"manifest": Path("x.csv")}])
def test_other_settings_do_not_go_on_with_it(tmp_path: Path, settings: dict[str, object]) -> None:
    """Named in the error."""
    archive, models = make_archive(tmp_path), make_models(tmp_path)
    make_job(archive, models, tmp_path / "out")

    with pytest.raises(PlanError, match=f"was begun with {next(iter(settings))}"):
        make_job(archive, models, tmp_path / "out", **settings)


def test_another_model_does_not_go_on_with_it(tmp_path: Path) -> None:
    """By its digest, whatever it is called."""
    archive = make_archive(tmp_path)
    make_job(archive, make_models(tmp_path), tmp_path / "out")
    write_model(tmp_path / "others", data=build_tiny_model(SPEC, gain=0.06))

    with pytest.raises(PlanError, match="was begun with digest"):
        make_job(archive, tmp_path / "others", tmp_path / "out")


def test_a_machine_with_another_model_judges_nothing(tmp_path: Path) -> None:
    """It says what the run began with."""
    archive = make_archive(tmp_path)
    job = make_job(archive, make_models(tmp_path), tmp_path / "out")
    write_model(tmp_path / "others", data=build_tiny_model(SPEC, gain=0.06))

    with pytest.raises(ModelFileError, match="the run began with"):
        Judge(replace(job, server=replace(job.server, models=tmp_path / "others")))


def test_an_archive_without_images_is_refused(tmp_path: Path) -> None:
    """And nothing is left in the folder of results."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(StorageError, match="has no PNG, JPEG or DICOM files"):
        make_job(tmp_path / "empty", make_models(tmp_path), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_with_another_plan_is_refused(tmp_path: Path) -> None:
    """Such as a table of somebody else's."""
    job = make_job(make_archive(tmp_path), make_models(tmp_path), tmp_path / "out")
    (tmp_path / "out" / PLAN_FILE).write_bytes(b"none")

    with pytest.raises(PlanError, match="is no plan of this program"):
        read_plan(job.out)


def test_parts_are_whole_or_not_there(tmp_path: Path) -> None:
    """One that was cut, by a disk or a copy, is judged again; those of another run are refused."""
    archive, models, out = make_archive(tmp_path), make_models(tmp_path), tmp_path / "out"
    job = make_job(archive, models, out, partition_files=8)
    judge = Judge(job)
    for partition in range(2):
        rows = judge.judge(partition)
        assert write_part(job.out, job.plan, partition, rows, judge.schema) == tally(rows)
    second = out / "part-000001.parquet"
    second.write_bytes(second.read_bytes()[:-100])

    assert find_parts(job.out, job.plan) == {0: tally(judge.judge(0))}

    other = make_job(archive, models, tmp_path / "other", partition_files=9)
    (out / "part-000000.parquet").rename(tmp_path / "other" / "part-000000.parquet")
    with pytest.raises(PlanError, match=r"part-000000\.parquet: is of another run"):
        read_part(other.out, replace_plan(other.plan, 8), 0)


def replace_plan(plan, files):  # type: ignore[no-untyped-def]
    """A plan with other sizes of partitions, so that a part's number of rows fits."""
    plan.terms = replace(plan.terms, partition_files=files)
    return plan


def test_what_killed_processes_leave_is_removed(tmp_path: Path) -> None:
    """And nothing else."""
    job = make_job(make_archive(tmp_path), make_models(tmp_path), tmp_path / "out")
    left = tmp_path / "out" / f".part-000000.parquet.{'0' * 32}"
    left.write_bytes(b"half")
    own = tmp_path / "out" / ".mine"
    own.write_bytes(b"")

    remove_left(job.out)

    assert (left.exists(), own.exists()) == (False, True)


def test_readers_of_the_folder_pass_the_plan_over(tmp_path: Path) -> None:
    """The whole folder is one table."""
    job = make_job(make_archive(tmp_path), make_models(tmp_path), tmp_path / "out", partition_files=8)
    judge = Judge(job)
    for partition in range(2):
        write_part(job.out, job.plan, partition, judge.judge(partition), judge.schema)

    assert parquet.read_table(tmp_path / "out").num_rows == 16
