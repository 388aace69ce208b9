"""Going on with a file of results: which images it answers already, and which have to be judged again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .result_file import ResultFile
from .results import Fields, FileStamp
from .selection import ListedImage


@dataclass(frozen=True)
class ResumePlan:
    """What is left to do."""

    remaining: list[ListedImage]
    """Images without a result, those to judge again among them."""

    done: int
    """Number of images whose results are kept."""

    failed: int
    """Number of those that could not be judged."""

    changed: list[str]
    """Names of the files that are not any more what was judged."""

    outdated: set[str]
    """Keys of the images whose results have to go before they are judged again."""

    models: dict[str, str]
    """Names and versions of the models in the kept results, by digest."""

    is_foreign: bool
    """There are results, and none of them is of an image that is named now."""

    def wants(self, fields: Fields) -> bool:
        """True when a record of the file stays in it."""
        return ListedImage(fields["file"]).key not in self.outdated


@dataclass(frozen=True, slots=True)
class _Known:
    """What the file says of one image."""

    failed: bool
    stamp: FileStamp | None
    sha256: str | None
    digest: str


def plan_resume(file: ResultFile, listed: Sequence[ListedImage], *, retry_failed: bool) -> ResumePlan:
    """Compares the results in ``file`` with the images that are named now.

    A file counts as changed when its size is another, or its time of change and its SHA-256 are. One that is gone is
    not: its result stays.

    Args:
        file: the results.
        listed: the images.
        retry_failed: judge those again that could not be judged.

    Raises:
        ResultFileError: the file holds something else.
    """
    known: dict[str, _Known] = {}
    names: dict[str, str] = {}
    for fields in file.records():
        known[ListedImage(fields["file"]).key] = _read_known(fields)
        if "digest" in fields:
            names[fields["digest"]] = f"{fields.get('model')} {fields.get('version')}"
    remaining, changed, outdated = [], [], set()
    done = failed = 0
    models: dict[str, str] = {}
    for entry in listed:
        key = entry.key
        record = known.get(key)
        if record is not None:
            is_changed = _is_changed(entry, record)
            if not is_changed and not (retry_failed and record.failed):
                done += 1
                failed += record.failed
                if record.digest:
                    models[record.digest] = names[record.digest]
                continue
            outdated.add(key)
            if is_changed:
                changed.append(entry.name)
        remaining.append(entry)
    is_foreign = bool(known) and not done and not outdated
    return ResumePlan(remaining, done, failed, changed, outdated, models, is_foreign)


def take_stamp(path: str) -> FileStamp | None:
    """Returns what tells cheaply that a file has been changed; None where there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileStamp.from_times(found.st_size, found.st_mtime_ns)


def _read_known(fields: Fields) -> _Known:
    size, modified = fields.get("file_bytes"), fields.get("file_modified")
    stamp = FileStamp(size, modified) if isinstance(size, int) and isinstance(modified, str) else None
    return _Known("label" not in fields, stamp, fields.get("image_sha256"), fields.get("digest", ""))


def _is_changed(entry: ListedImage, known: _Known) -> bool:
    if not isinstance(entry.image, str):
        return False
    stamp = take_stamp(entry.image)
    if stamp is None or stamp == known.stamp:
        return False
    if known.stamp is None:  # a file that was not there when it was to be judged
        return known.failed
    if stamp.size == known.stamp.size and known.sha256 is not None:
        try:
            image: BinaryIO
            with open(entry.image, "rb") as image:
                return hashlib.file_digest(image, "sha256").hexdigest() != known.sha256
        except OSError:
            return False
    return True
