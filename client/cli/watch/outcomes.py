"""What a watch leaves in the folder: results beside the images, and the images moved to done/ and failed/.

A result is on the disk before its image moves, and appears under its name in one step. So a watch that was killed at
any point finds, when it starts again, either no result or a whole one, and each image ends with exactly one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ..result_file import sync_file
from ..results import Fields, FileStamp
from .arrivals import ArrivedImage

DONE, FAILED = "done", "failed"
RESULT_SUFFIX = ".json"
TEMPORARY = ".strokeserve.tmp"
"""One at a time in a folder, because one watch at a time runs on it; what a killed one left is written over."""

_OF_THE_DISK = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENFILE, errno.EMFILE, errno.ENOMEM}
"""What no file is to blame for, whatever its name and content."""

_PROBE = b"{}\n"


@dataclass(frozen=True)
class KnownResult:
    """A result of an earlier run."""

    name: str
    """The file's name in the folder."""

    sha256: str
    """SHA-256 of what was judged; empty when that was not recorded."""

    stamp: FileStamp | None
    """The file that was judged; None when that was not recorded."""

    failed: bool
    """True when it says that the image was not judged."""

    path: str = ""
    """Where the image was to be moved to; empty when that is still open."""

    @classmethod
    def from_fields(cls, fields: Fields, path: str = "") -> KnownResult:
        """Makes one of a record that was read again."""
        stamp = None
        if "file_bytes" in fields and "file_modified" in fields:
            stamp = FileStamp(fields["file_bytes"], fields["file_modified"])
        name = os.path.basename(fields["file"])
        return cls(name, fields.get("image_sha256") or "", stamp, bool(fields.get("error")), path)


class Outcomes:
    """Puts results and images where they belong.

    Args:
        folder: the folder under watch.
        beside: write ``scan.png.json`` beside each image.
        move: move images to ``done/`` and ``failed/`` in the folder, their results with them. Nothing is ever
            overwritten there: a second ``scan.png`` becomes ``scan-1.png``.
    """

    def __init__(self, folder: str, *, beside: bool, move: bool) -> None:
        self._folder = folder
        self._beside = beside
        self._move = move

    @property
    def moves(self) -> bool:
        """True when images leave the folder."""
        return self._move

    def prepare(self) -> None:
        """Makes the folders that are needed, and finds out early whether they can be written to.

        Raises:
            OSError: they cannot.
        """
        for folder in self._targets():
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, TEMPORARY)
            with open(path, "wb") as file:
                file.write(_PROBE)
            os.unlink(path)
        if self._move and not os.access(self._folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._folder)

    def is_at_fault(self, error: OSError) -> bool:
        """True when an error of ``store`` or ``finish`` says that disk or folder take no results any more; False when
        they take others, so that it is the one image's: its name, its rights, or what stands in its place."""
        if error.errno in _OF_THE_DISK:
            return True
        try:
            self.prepare()
        except OSError:
            return True
        return False

    def find_results(self) -> Iterator[KnownResult]:
        """Yields the results that earlier runs left for images that are still in the folder.

        Raises:
            OSError: a folder cannot be read.
        """
        if not self._beside:
            return
        for folder in self._targets():
            with os.scandir(folder) as entries:
                names = {entry.name for entry in entries}
            for result_name in names:
                name = result_name.removesuffix(RESULT_SUFFIX)
                # In done/ and failed/ it is one whose image was not moved any more.
                if name == result_name or (name in names) == self._move:
                    continue
                path = os.path.join(folder, result_name)
                if (record := _read_result(path)) is not None:
                    yield KnownResult.from_fields(record, os.path.join(folder, name) if self._move else "")

    def store(self, image: ArrivedImage, record: Fields) -> None:
        """Writes the result of an image and moves the image, as the settings say.

        Args:
            image: what was judged.
            record: the result; it has ``error`` when the image was not judged.

        Raises:
            OSError: something cannot be written; the image is then still in its place.
        """
        failed = "error" in record
        if not self._move:
            if self._beside:
                self._write_beside(os.path.join(self._folder, image.name), record)
            return
        target = os.path.join(self._folder, FAILED if failed else DONE)
        with suppress(FileExistsError):  # as it does unless somebody has tidied up
            os.mkdir(target)
        while True:
            path = self._claim(target, image.name)
            if self._beside:
                self._write_beside(path, record)
            try:
                self._move_image(image.name, path)
                return
            except FileExistsError:  # somebody else put a file there this moment
                if self._beside:
                    os.unlink(path + RESULT_SUFFIX)

    def finish(self, image: ArrivedImage, known: KnownResult) -> None:
        """Moves an image whose result was written by an earlier run that could not move it any more.

        Raises:
            OSError: it cannot be moved.
        """
        if self._move:
            target = os.path.join(self._folder, FAILED if known.failed else DONE)
            self._move_image(image.name, known.path or self._claim(target, image.name))

    def list_targets(self) -> list[str]:
        """Returns the folders that images are moved to, by this watch or another one."""
        return [os.path.join(self._folder, DONE), os.path.join(self._folder, FAILED)]

    def _targets(self) -> Iterable[str]:
        """The folders that results or images are put into."""
        if self._move:
            return self.list_targets()
        return [self._folder] if self._beside else []

    def _claim(self, target: str, name: str) -> str:
        """Returns a free path for an image: its own name, or with the first free number that doubling steps find."""

        def is_free(path: str) -> bool:
            if os.path.lexists(path):  # it may be this very file, when a run was killed between the two steps of moving
                return _is_same_file(path, os.path.join(self._folder, name))
            return not os.path.lexists(path + RESULT_SUFFIX)

        stem, suffix = os.path.splitext(name)

        def number(count: int) -> str:
            return os.path.join(target, f"{stem}-{count}{suffix}" if count else name)

        if is_free(number(0)):
            return number(0)
        taken, free = 0, 1
        while not is_free(number(free)):
            taken, free = free, 2 * free
        while free - taken > 1:  # thousands of files with one name cost a dozen looks
            middle = (taken + free) // 2
            if is_free(number(middle)):
                free = middle
            else:
                taken = middle
        return number(free)

    def _write_beside(self, path: str, record: Fields) -> None:
        final = path + RESULT_SUFFIX
        if os.path.lexists(final) and not _is_empty_file(final) and _read_result(final) is None:
            raise FileExistsError(errno.EEXIST, "a file of this name is there and is no result", final)
        temporary = os.path.join(os.path.dirname(path), TEMPORARY)
        with open(temporary, "w", encoding="ascii") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            sync_file(file.fileno())
        try:
            os.replace(temporary, final)
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary)
            raise OSError(error.errno, error.strerror, final) from None

    def _move_image(self, name: str, path: str) -> None:
        source = os.path.join(self._folder, name)
        if _is_same_file(source, path):
            os.unlink(source)
            return
        try:
            _rename_new(source, path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            temporary = os.path.join(os.path.dirname(path), TEMPORARY)
            with open(source, "rb") as original, open(temporary, "wb") as copy:
                shutil.copyfileobj(original, copy)
                copy.flush()
                sync_file(copy.fileno())
            with suppress(OSError):  # a share may have no such rights and times
                shutil.copystat(source, temporary)
            _rename_new(temporary, path)
            os.unlink(source)


def _rename_new(source: str, path: str) -> None:
    """Renames a file, and fails with ``FileExistsError`` where there is one of the new name."""
    try:
        os.link(source, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise
        # No hard links on this file system, or not for files of others: next to no time between the two steps.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        os.rename(source, path)
    else:
        os.unlink(source)


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _is_empty_file(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and not found.st_size


def _read_result(path: str) -> Fields | None:
    """Returns a result that this module wrote; None for anything else."""
    try:
        if not os.path.isfile(path):  # a pipe would block for ever
            return None
        with open(path, encoding="ascii") as file:
            record = json.load(file)
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(record, dict) and isinstance(record.get("file"), str) and ("label" in record or "error" in record):
        return record
    return None
