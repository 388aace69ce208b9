"""Which images a run judges: those that the arguments name, without those that a file of results answers already."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from .results import LEFT_OUT, NOT_ANALYSED, Fields, FileStamp

if TYPE_CHECKING:
    from ..files.folder import LeftOut
    from .result_file import ResultFile


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
        try:
            return self.name if self.name == "-" else os.path.abspath(self.name)
        except OSError:  # the working directory has gone
            return self.name


def list_images(arguments: list[str], *, recursive: bool, left_out: LeftOut | None = None) -> list[ListedImage]:
    """Returns the images that ``arguments`` name, in the order of the arguments, each once however often it is named.

    A file is taken whatever its name; in folders the PNG, JPEG and DICOM files that are not hidden, in sorted order
    (``client.files.folder``). An argument with ``*``, ``?`` or ``[`` that is no file stands for the files and folders
    that it matches, sorted, as if the shell had expanded it; with ``recursive``, ``**`` matches any number of folders.

    Args:
        arguments: paths, patterns, ``-`` for standard input.
        recursive: also take what lies below the folders.
        left_out: takes what the folders hold beside that.
    """
    seen: set[str] = set()
    images = []
    for entry in _list_all(arguments, recursive=recursive, left_out=left_out):
        if (key := entry.key) not in seen:
            seen.add(key)
            images.append(entry)
    if left_out is not None and left_out.files:
        left_out.discard([path for path in left_out.files if ListedImage(path).key in seen])
    return images


def _list_all(arguments: Iterable[str], *, recursive: bool, left_out: LeftOut | None) -> Iterator[ListedImage]:
    for argument in arguments:
        if argument.endswith("\r") and not os.path.lexists(argument):
            argument = argument.removesuffix("\r")  # `xargs` with a list that Windows has written
        if argument == "-":
            yield _take_standard_input()
        elif os.path.isdir(argument):
            yield from _list_folder(argument, recursive=recursive, left_out=left_out)
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            yield from _list_matches(argument, recursive=recursive, left_out=left_out)
        elif _is_pipe(argument):
            yield _take_pipe(argument)
        else:
            yield ListedImage(argument, argument)


def _take_standard_input() -> ListedImage:
    if sys.stdin is None:
        return ListedImage("-", fault="standard input is closed")
    from ..files.ends import SingleImage

    return ListedImage("-", cast("BinaryIO", SingleImage(sys.stdin.buffer)))


def _take_pipe(path: str) -> ListedImage:
    from ..files.ends import SingleImage

    return ListedImage(path, cast("BinaryIO", SingleImage(path)))


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _list_matches(pattern: str, *, recursive: bool, left_out: LeftOut | None) -> Iterator[ListedImage]:
    found = False
    # A NUL character is no part of any path, and glob would raise.
    for match in sorted(glob.glob(pattern, recursive=recursive)) if "\0" not in pattern else ():
        # `scans/*` matches folders beside files; that one of them has no image is no fault of the user's.
        is_folder = os.path.isdir(match)
        entries = _walk_folder(match, recursive=recursive, left_out=left_out) if is_folder else ()
        for entry in entries if is_folder else [ListedImage(match, match)]:
            found = True
            yield entry
    if not found:
        advice = " (** needs --recursive)" if "**" in pattern and not recursive else ""
        yield ListedImage(pattern, fault=f"no image matches this pattern{advice}")


def _list_folder(folder: str, *, recursive: bool, left_out: LeftOut | None) -> Iterator[ListedImage]:
    found = False
    for entry in _walk_folder(folder, recursive=recursive, left_out=left_out):
        found = True
        yield entry
    if not found:
        advice = "" if recursive else " (--recursive looks into the folders below)"
        yield ListedImage(folder, fault=f"no PNG, JPEG or DICOM file in this folder{advice}")


def _walk_folder(folder: str, *, recursive: bool, left_out: LeftOut | None) -> Iterator[ListedImage]:
    from ..files.folder import LeftOut, walk_folder  # files by name do without

    faults: list[OSError] = []
    nobody = LeftOut()
    for file in walk_folder(folder, nobody if left_out is None else left_out, recursive=recursive, faults=faults):
        yield ListedImage(file, file)
    for fault in faults:
        yield ListedImage(str(fault.filename), fault=f"the folder cannot be read: {fault.strerror}")


@dataclass(frozen=True)
class ResumePlan:
    """What is left to do."""

    remaining: list[ListedImage]
    """Images without a result, those to judge again among them."""

    done: int
    """Number of images whose results are kept."""

    labels: Counter[str]
    """How many of those have which label."""

    positive_labels: set[str]
    """Those of ``labels`` that are positive, as far as the results say it."""

    failed: int
    """Number of those that could not be judged."""

    without_images: int
    """Number of folders and patterns that had no image before, and have none now."""

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

    label: str
    """Empty when the image was not judged."""

    stamp: FileStamp | None
    sha256: str | None
    digest: str
    is_positive: bool

    @property
    def failed(self) -> bool:
        return not self.label


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
        if fields.get("reason") == LEFT_OUT:  # which says nothing about an image
            continue
        known[ListedImage(fields["file"]).key] = _read_known(fields)
        if "digest" in fields:
            names[fields["digest"]] = f"{fields.get('model')} {fields.get('version')}"
    remaining, changed, outdated = [], [], set()
    done = failed = without_images = 0
    labels: Counter[str] = Counter()
    positive_labels: set[str] = set()
    models: dict[str, str] = {}
    for entry in listed:
        key = entry.key
        record = known.get(key)
        if record is not None:
            is_changed = _is_changed(entry, record)
            if not is_changed and not (retry_failed and record.failed):
                if entry.image is None:
                    without_images += 1
                    continue
                done += 1
                if record.failed:
                    failed += 1
                else:
                    labels[record.label] += 1
                    positive_labels.update([record.label] * record.is_positive)
                if record.digest:
                    models[record.digest] = names[record.digest]
                continue
            outdated.add(key)
            if is_changed:
                changed.append(entry.name)
        remaining.append(entry)
    is_foreign = bool(known) and not done and not without_images and not outdated
    return ResumePlan(
        remaining, done, labels, positive_labels, failed, without_images, changed, outdated, models, is_foreign
    )


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
    label = fields.get("label") or ("" if "error" in fields else NOT_ANALYSED)
    is_positive = label == fields.get("positive_label")
    return _Known(label, stamp, fields.get("image_sha256"), fields.get("digest", ""), is_positive)


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
