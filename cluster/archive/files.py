"""Which files an archive has: what a walk finds, by the rules of ``server.images.image_folder``, or what a table names.

One folder is in memory at a time, never the whole archive.
"""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from cluster.archive.storage import Kind, Storage, StorageError, tell
from server.images.dicom.signature import SIGNATURE_BYTES, is_dicom
from server.images.image_folder import DICOM_SUFFIXES, HIDDEN, INDEX_NAME, SUFFIXES, UNREADABLE, is_hidden, name_kind

FILE_COLUMN = "file"


def walk(storage: Storage, left_out: Counter[str]) -> Iterator[str]:
    """Yields the paths of images, folder by folder, each sorted.

    Links are not followed, so that no file is found twice.

    Args:
        storage: where to look.
        left_out: counts what is no image, by its kind; a hidden folder counts as one.

    Raises:
        StorageError: it cannot be read.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = storage.list(folder)
        except OSError as error:
            if not folder:
                raise StorageError(f"{storage.name}: cannot be read ({tell(error)})") from None
            left_out[UNREADABLE] += 1
            continue
        below = []
        for name, kind in entries:
            path = f"{folder}/{name}" if folder else name
            if is_hidden(name):
                left_out[HIDDEN] += 1
            elif kind is Kind.FOLDER:
                below.append(path)
            elif kind is not Kind.FILE:
                left_out[kind.value] += 1
            elif is_image(storage, path):
                yield path
            else:
                left_out[name_kind(Path(path))] += 1
        waiting += reversed(below)


def is_image(storage: Storage, path: str) -> bool:
    """Whether a file is an image: of most files the name tells, of others the first bytes."""
    name = PurePosixPath(path)
    suffix = name.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if not (suffix in ("", *DICOM_SUFFIXES) or suffix[1:].isdigit()) or name.name.lower() == INDEX_NAME:
        return False
    try:
        return is_dicom(storage.read(path, SIGNATURE_BYTES).data)
    except OSError:
        return False


def read_manifest(table: Path) -> Iterator[str]:
    """Yields the paths that a CSV table names in its column ``file``; its other columns say nothing here. 8 bytes of
    each path are kept.

    Raises:
        StorageError: it is no such table, or names what does not lie below INPUT, or at the end: a file twice.
    """
    seen = array("q")
    for path in read_column(table):
        seen.append(hash(path))
        yield path
    hashes = np.sort(np.frombuffer(seen, np.int64))
    repeated = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if repeated:
        found = Counter(path for path in read_column(table) if hash(path) in repeated)
        for path, count in found.items():
            if count > 1:
                raise StorageError(f"{table}: names {path} {count} times: each file is to be judged exactly once")


def read_column(table: Path) -> Iterator[str]:
    """``read_manifest`` without a look at what is repeated."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            if FILE_COLUMN not in (rows.fieldnames or ()):
                raise StorageError(f"{table}: has no column {FILE_COLUMN}")
            for row in rows:
                path = PurePosixPath(row[FILE_COLUMN] or "")
                if not path.parts or path.is_absolute() or ".." in path.parts:
                    raise StorageError(f"{table}, line {rows.line_num}: must name a file by its path below INPUT")
                yield str(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StorageError(f"{table}: cannot be read ({tell(error)})") from None
