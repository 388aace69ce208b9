"""What a run has to do, fixed when it begins: which files in which partitions, and by what they are judged.

It is one Parquet file in the folder of results, with a row group for each partition. What it says of the run stands in
its metadata. Its name begins with an underscore, so readers of the folder pass it over.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from cluster.archive.storage import Storage, StorageError, tell

PLAN_FILE = "_plan.parquet"
METADATA_KEY = b"stroke.plan"
SCHEMA = 1


@dataclass(frozen=True)
class Terms:
    """By what the files of a run are judged: all results of a folder are by the same."""

    software: str
    """Version of this project."""

    input: str
    manifest: str | None
    partition_files: int
    model: str
    """Its name; ``version`` and ``digest`` are its own, too."""

    version: str
    digest: str
    """SHA-256 of the file that runs, which depends on the precision."""

    labels: tuple[str, ...]
    checks: str
    limits: tuple[int, ...]
    """Of images: bytes, shortest and longest side, pixels."""


class PlanError(Exception):
    """A folder of results that a run cannot go on with; the message is one line."""


class Plan:
    """The plan of a run, which lies in a folder. It can be sent to other processes.

    Attributes:
        terms: by what is judged.
        identity: the same for the same files under the same terms alone.
        files: how many there are.
        left_out: what lies beside them, by its kind.
    """

    def __init__(self, out: Storage, terms: Terms, identity: str, files: int, left_out: Mapping[str, int]) -> None:
        self.terms, self.identity, self.files, self.left_out = terms, identity, files, dict(left_out)
        self._out = out

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    @property
    def partitions(self) -> int:
        """How many there are."""
        return -(-self.files // self.terms.partition_files)

    def count_files(self, partition: int) -> int:
        """Files of one partition, of which the last has the rest."""
        return min(self.terms.partition_files, self.files - partition * self.terms.partition_files)

    def list_files(self, partition: int) -> list[str]:
        """Paths of the files of one partition, below the input. Raises OSError."""
        names: list[bytes] = self._table.read_row_group(partition).column("file").to_pylist()
        return [os.fsdecode(name) for name in names]

    @cached_property
    def _table(self) -> parquet.ParquetFile:
        return parquet.ParquetFile(self._out.locate(PLAN_FILE), filesystem=self._out.filesystem)


def read_plan(out: Storage) -> Plan | None:
    """The plan of the run whose results a folder has; None: it has none.

    Raises:
        PlanError: it cannot be read.
    """
    try:
        metadata = parquet.read_metadata(out.locate(PLAN_FILE), filesystem=out.filesystem).metadata
        document = json.loads(metadata[METADATA_KEY])
        terms = document["terms"]
        if document["schema"] != SCHEMA or set(terms) != {field.name for field in fields(Terms)}:
            raise ValueError("it is of another version of this program")
        terms |= {"labels": tuple(terms["labels"]), "limits": tuple(terms["limits"])}
        return Plan(out, Terms(**terms), document["identity"], document["files"], document["left_out"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{out.show(PLAN_FILE)}: is no plan of this program ({tell(error)})") from None


def write_plan(
    out: Storage, terms: Terms, paths: Iterable[str], left_out: Mapping[str, int], note: Callable[[int], None]
) -> Plan:
    """Fixes what a run has to do.

    Args:
        out: the folder of results, which exists.
        terms: by what is judged.
        paths: of the files, in the order in which they are to be judged.
        left_out: what lies beside them, complete once ``paths`` is at its end.
        note: is told after each partition how many there are so far.

    Raises:
        PlanError: it cannot be written, or there are no files.
        StorageError: as ``paths``.
    """
    digest = hashlib.sha256(json.dumps(asdict(terms), sort_keys=True).encode())
    files = 0

    def write(stream: Any) -> None:
        nonlocal files
        schema = pa.schema([("file", pa.binary())])  # names of files need not be text
        with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
            for group in split(paths, terms.partition_files):
                names = [os.fsencode(path) for path in group]
                digest.update(b"\0".join((*names, b"")))
                writer.write_table(pa.table([names], schema=schema), row_group_size=len(names))
                files += len(group)
                note(files)
            if not files:
                raise StorageError(f"{terms.input}: has no PNG, JPEG or DICOM files")
            document = {"schema": SCHEMA, "identity": digest.hexdigest(), "files": files, "left_out": left_out}
            document["terms"] = asdict(terms)
            writer.add_key_value_metadata({METADATA_KEY: json.dumps(document).encode()})

    try:
        out.write(PLAN_FILE, write)
    except OSError as error:
        raise PlanError(f"{out.show(PLAN_FILE)}: cannot be written ({tell(error)})") from None
    return Plan(out, terms, digest.hexdigest(), files, left_out)


def split(paths: Iterable[str], size: int) -> Iterator[list[str]]:
    """Groups of ``size`` paths, the last one with the rest."""
    group: list[str] = []
    for path in paths:
        group.append(path)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def check_terms(plan: Plan, terms: Terms, out: Storage) -> None:
    """Sees that a run may go on with what an earlier one has begun.

    Raises:
        PlanError: it judges by something else; the message says by what.
    """
    before, now = asdict(plan.terms), asdict(terms)
    for name, value in before.items():
        if value != now[name]:
            raise PlanError(
                f"{out.name}: was begun with {name} {show(value)}, and this run has {show(now[name])}: give it the "
                "same, or another --out"
            )


def show(value: object) -> str:
    """A term as an error shows it."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
