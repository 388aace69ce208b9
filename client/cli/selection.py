"""Which images a run judges: those that the arguments name, without those that a file of results answers already."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from .results import Fields, FileStamp

if TYPE_CHECKING:
    from .result_file import ResultFile

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image to judge, or the reason why an argument names none."""

    name: str
    """What the output calls it: the path as the user gave it, ``-`` for standard input."""

    image: str | BinaryIO | None = None
    """What the client reads; None when ``fault`` says why there is nothing to read."""

    fault: str = ""
    """A sentence, empty when there is an image."""

    @property
    def key(self) -> str:
        """The same for all spellings of one path; links are not followed."""
        return self.name if self.name == "-" else os.path.abspath(self.name)


def list_images(arguments: list[str], *, recursive: bool) -> list[ListedImage]:
    """Returns the images that ``arguments`` name, in the order of the arguments, each once however often it is named.

    A file is taken whatever its name; in folders the PNG and JPEG files that are not hidden, in sorted order. An
    argument with ``*``, ``?`` or ``[`` that is no file stands for the files and folders that it matches, sorted, as if
    the shell had expanded it; with ``recursive``, ``**`` matches any number of folders.
    """
    seen: set[str] = set()
    images = []
    for entry in _list_all(arguments, recursive=recursive):
        if (key := entry.key) not in seen:
            seen.add(key)
            images.append(entry)
    return images


def _list_all(arguments: Iterable[str], *, recursive: bool) -> Iterator[ListedImage]:
    for argument in arguments:
        if argument == "-":
            stdin = sys.stdin.buffer if sys.stdin is not None else None
            yield ListedImage("-", stdin, "" if stdin else "standard input is closed")
        elif os.path.isdir(argument):
            yield from _list_folder(argument, recursive=recursive)
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            yield from _list_matches(argument, recursive=recursive)
        else:
            yield ListedImage(argument, argument)


def _list_matches(pattern: str, *, recursive: bool) -> Iterator[ListedImage]:
    found = False
    # A NUL character is no part of any path, and glob would raise.
    for match in sorted(glob.glob(pattern, recursive=recursive)) if "\0" not in pattern else ():
        # `scans/*` matches folders beside files; that one of them has no image is no fault of the user's.
        for entry in _walk_folder(match, recursive=recursive) if os.path.isdir(match) else [ListedImage(match, match)]:
            found = True
            yield entry
    if not found:
        advice = " (** needs --recursive)" if "**" in pattern and not recursive else ""
        yield ListedImage(pattern, fault=f"no image matches this pattern{advice}")


def _list_folder(folder: str, *, recursive: bool) -> Iterator[ListedImage]:
    found = False
    for entry in _walk_folder(folder, recursive=recursive):
        found = True
        yield entry
    if not found:
        advice = "" if recursive else " (--recursive looks into the folders below)"
        yield ListedImage(folder, fault=f"no PNG or JPEG file in this folder{advice}")


def _walk_folder(folder: str, *, recursive: bool) -> Iterator[ListedImage]:
    faults: list[OSError] = []
    # os.walk hides folders that cannot be read unless it is given somewhere to tell.
    for path, below, files in os.walk(folder, onerror=faults.append):
        below[:] = sorted(name for name in below if recursive and not name.startswith("."))
        for name in sorted(files):
            file = os.path.join(path, name)
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES) and _is_readable_kind(file):
                yield ListedImage(file, file)
    for fault in faults:
        yield ListedImage(str(fault.filename), fault=f"the folder cannot be read: {fault.strerror}")


def _is_readable_kind(file: str) -> bool:
    # A pipe or socket would block for ever; a dangling link is listed, so that reading it fails with its name.
    return os.path.isfile(file) or not os.path.exists(file)


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
    return _Known("error" in fields, stamp, fields.get("image_sha256"), fields.get("digest", ""))


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
