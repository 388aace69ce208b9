"""Parts of the results: one Parquet file for each partition, there as a whole or not at all."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from cluster.archive.plan import Plan, PlanError
from cluster.archive.rows import Row
from cluster.archive.storage import Storage

PART_NAME = re.compile(r"part-(\d{6,})\.parquet")
LEFT_NAME = re.compile(r"\.(part-\d{6,}|_plan)\.parquet\.[0-9a-f]{32}|\.part-\d{6,}\.mark")
"""What a process leaves that is killed: what it was writing, and the mark of its attempt."""

METADATA_KEY = b"stroke.part"
READERS = 16
"""Parts that are looked at at the same time: in an object store each takes tens of milliseconds."""


@dataclass
class Tally:
    """What has come of some files."""

    files: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    """Files that were analysed, by their label."""

    not_analysed: Counter[str] = field(default_factory=Counter)
    """Files without a label, by the first reason."""

    failed: Counter[str] = field(default_factory=Counter)
    """Files that could not be judged, by the reason."""

    def add(self, other: Tally) -> None:
        """Adds what has come of other files."""
        self.files += other.files
        self.labels += other.labels
        self.not_analysed += other.not_analysed
        self.failed += other.failed

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "files": self.files,
            "labels": dict(self.labels),
            "not_analysed": dict(self.not_analysed),
            "failed": dict(self.failed),
        }


def read_tally(document: Any) -> Tally:
    """The reverse of ``Tally.to_json``. Raises KeyError, TypeError."""
    counts = (Counter(document[name]) for name in ("labels", "not_analysed", "failed"))
    return Tally(document["files"], *counts)


def tally(rows: Iterable[Row]) -> Tally:
    """Counts what has come of files."""
    found = Tally()
    for row in rows:
        found.files += 1
        if "error" in row:
            found.failed[row["reason"]] += 1
        elif row["label"] is None:
            found.not_analysed[row["reasons"][0]["reason"]] += 1
        else:
            found.labels[row["label"]] += 1
    return found


def name_part(partition: int) -> str:
    """The name of a partition's file."""
    return f"part-{partition:06}.parquet"


def write_part(out: Storage, plan: Plan, partition: int, rows: list[Row], schema: pa.Schema) -> Tally:
    """Writes the rows of a partition, and what they come to into the file's metadata. Returns that.

    Raises:
        OSError: it cannot be written.
    """
    found = tally(rows)
    document = {"plan": plan.identity, "partition": partition, "tally": found.to_json()}
    table = pa.Table.from_pylist(rows, schema.with_metadata({METADATA_KEY: json.dumps(document).encode()}))
    out.write(name_part(partition), lambda stream: parquet.write_table(table, stream, compression="zstd"))
    return found


def read_part(out: Storage, plan: Plan, partition: int) -> Tally | None:
    """What the rows of a partition come to, by its file's metadata; None: it has no file that is whole.

    Raises:
        PlanError: the file is of another run.
    """
    try:
        metadata = parquet.read_metadata(out.locate(name_part(partition)), filesystem=out.filesystem)
        document = json.loads(metadata.metadata[METADATA_KEY])
        if metadata.num_rows != plan.count_files(partition):
            return None
        owner, found = document["plan"], read_tally(document["tally"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if owner != plan.identity:
        raise PlanError(f"{out.show(name_part(partition))}: is of another run: give another --out")
    return found


def find_parts(out: Storage, plan: Plan) -> dict[int, Tally]:
    """The partitions that are finished, with what their rows come to.

    Raises:
        PlanError: one of them is of another run.
        OSError: the folder cannot be read.
    """
    names = [name for name, _ in out.list("")]
    numbers = [int(found[1]) for name in names if (found := PART_NAME.fullmatch(name))]
    if numbers and max(numbers) >= plan.partitions:
        raise PlanError(f"{out.show(name_part(max(numbers)))}: is of another run: give another --out")
    with ThreadPoolExecutor(READERS) as pool:
        tallies = pool.map(lambda number: read_part(out, plan, number), numbers)
        return {number: found for number, found in zip(numbers, tallies, strict=True) if found is not None}


def remove_left(out: Storage) -> None:
    """Removes what killed processes have left. For when no process writes any more. Raises OSError."""
    for name, _ in out.list(""):
        if LEFT_NAME.fullmatch(name):
            out.remove(name)
