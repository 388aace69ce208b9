"""Small archives for tests, and what judges them without a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from cluster.archive.command import prepare
from cluster.archive.judge import Job, Judge
from cluster.archive.rows import MEASURED
from cluster.archive.settings import ScoreConfig
from server.config import ServerConfig
from server.images.dicom.window import BRAIN
from tests.dicom_files import make_dicom, make_hu
from tests.fakes import SPEC, encode, make_slice, write_model

WINDOWED = replace(SPEC, windows=(BRAIN,))
"""Of the tiny model, so that DICOM files are judged, too."""


def make_archive(root: Path, count: int = 12) -> Path:
    """A folder of good and bad files, and of some that are none.

    Args:
        root: where to make it.
        count: good PNG and JPEG files, in two folders; beside them are a DICOM file and three bad ones.
    """
    archive = root / "archive"
    for number in range(count):
        folder = archive / f"p{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        image = make_slice(level=60 + number % 120, seed=number)
        kind = "JPEG" if number % 3 == 0 else "PNG"
        (folder / f"{number:04}.{kind.lower()}").write_bytes(encode(image, kind))
    (archive / "p1" / "IM0001").write_bytes(make_dicom(make_hu()))
    (archive / "cut.png").write_bytes(encode(make_slice())[:300])
    (archive / "empty.jpg").write_bytes(b"")
    (archive / "junk.png").write_bytes(b"no image")
    (archive / "notes.txt").write_text("none")
    (archive / ".hidden.png").write_bytes(encode(make_slice()))
    (archive / "link.png").symlink_to("junk.png")
    return archive


def make_models(root: Path) -> Path:
    """A models folder with the tiny model."""
    models = root / "models"
    write_model(models, WINDOWED)
    return models


def make_job(archive: Path, models: Path, out: Path, **settings: object) -> Job:
    """What a run with these settings has to do, fixed in ``out``."""
    config = ScoreConfig(input=str(archive), out=str(out), **settings)  # type: ignore[arg-type]
    return prepare(config, ServerConfig(models=models, cache="off"))


def judge_alone(job: Job) -> pa.Table:
    """All rows of a run, judged one after another in this process."""
    judge = Judge(job)
    rows = [row for partition in range(job.plan.partitions) for row in judge.judge(partition)]
    return pa.Table.from_pylist(rows, judge.schema)


def read_parts(out: Path) -> pa.Table:
    """All rows of the results, in the order of their partitions."""
    return pa.concat_tables(parquet.read_table(path) for path in sorted(out.glob("part-*.parquet")))


def drop_measured(table: pa.Table, more: Iterable[str] = ()) -> pa.Table:
    """Without what differs from run to run."""
    return table.drop_columns([*MEASURED, *more]).replace_schema_metadata()
