"""A folder under watch: which of its images are new, no longer written to, and complete.

The folder is polled: notifications of the system do not reach across network shares, and cost a package. A file is
taken when its size and time have not changed for a while and the bytes go to the image's end; a file that stays as it
is without an end is given up on after a longer while, and left to the server to refuse.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from ..._config import DEFAULT_MAX_IMAGE_BYTES
from ..._errors import ImageReadError, ImageTooLargeError, StrokeClientError
from ...files.dicom import is_dicom_file
from ...files.ends import has_image_end
from ...files.folder import FOLDER, SPECIAL, LeftOut, is_image_name, may_be_dicom, name_kind
from ..results import FileStamp

PATIENCE_SECONDS = 30.0
"""How long a file without an end, or one that cannot be read, must not have changed before it counts as faulty: a
writer whose network hangs goes on within that time."""

_RECHECKS = 500
"""Judged files that are looked at again in one poll, in turns, for one that was written anew under the same name."""

_LATEST_NS = 253_402_300_799 * 10**9
"""The end of the year 9999, after which Python knows no dates; file systems do."""

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes when a file is written to: its size in bytes, and the time of it in nanoseconds."""

    size: int
    mtime_ns: int

    def to_file_stamp(self) -> FileStamp:
        """The same as records have it."""
        return FileStamp.from_times(self.size, min(max(self.mtime_ns, 0), _LATEST_NS))


@dataclass(frozen=True)
class ArrivedImage:
    """A file to judge."""

    name: str
    """Its name in the folder."""

    stamp: Stamp
    """What it was when it was read."""

    data: bytes = b""
    """Its bytes; empty when ``fault`` says why there are none."""

    sha256: str = ""
    """SHA-256 of ``data``, 64 lower-case hexadecimal digits; empty without data."""

    fault: StrokeClientError | None = None
    """Why it cannot be read; None when it can."""

    judged: bool = False
    """True when these very bytes under this name have a result already."""


@dataclass(slots=True)
class _Waiting:
    stamp: Stamp
    since: float
    """Time since when the stamp has been the same."""

    put_off: bool = False
    """True once it was read in vain: it is read again when it has changed, or when patience with it has ended."""


@dataclass(slots=True)
class _Judged:
    stamp: Stamp | None
    """The file when it was judged; None when it was another one than now."""

    sha256: str
    """Empty when it is not known."""

    skipped: bool
    """True while the file is not looked at in each poll."""


_TEMPORARY_SUFFIXES = (".part", ".partial", ".filepart", ".tmp", ".crdownload")


def is_temporary_name(name: str) -> bool:
    """True for names of files on their way."""
    return name.startswith((".", "~")) or name.lower().endswith(_TEMPORARY_SUFFIXES)


class Arrivals:
    """Finds the images of a folder that are ready to be judged. Memory grows with the files in the folder alone.

    Args:
        folder: the folder; nothing below it is looked at.
        settle: seconds for which a file must not have changed.
        patience: seconds for which a file that is no complete image must not have changed.
        own: paths in the folder that belong to the watch itself.
    """

    def __init__(
        self, folder: str, *, settle: float, patience: float = PATIENCE_SECONDS, own: Iterable[str] = ()
    ) -> None:
        self.folder = folder
        self.left_out = LeftOut(own)
        """What the last poll found beside images."""

        self.oddities: list[str] = []
        """Names found by the last poll that look like images and are links, folders or devices: left alone."""

        self._settle = settle
        self._patience = max(patience, settle)
        self._waiting: dict[str, _Waiting] = {}
        self._judged: dict[str, _Judged] = {}
        self._odd: set[str] = set()
        self._looked_into: dict[str, tuple[Stamp, bool]] = {}  # files whose names do not say whether they are images

    @property
    def waiting(self) -> int:
        """Files that are there and have no result."""
        return len(self._waiting.keys() - self._judged.keys())

    @property
    def judged(self) -> int:
        """Files that are there and have a result."""
        return len(self._judged)

    def poll(self) -> list[str]:
        """Looks at the folder once and returns the names of files that have settled, oldest first.

        Files that were judged cost no more than their name, so a poll of 10,000 of them takes about 10 ms.

        Raises:
            OSError: the folder cannot be read.
        """
        now = time.monotonic()
        names: set[str] = set()
        odd: set[str] = set()
        settled: list[tuple[int, str]] = []
        strangers: set[str] = set()
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name = entry.name
                if is_temporary_name(name):
                    continue
                if not self._is_image(entry):
                    strangers.add(entry.path)
                    self._look_at_stranger(entry)
                    continue
                names.add(name)
                if (judged := self._judged.get(name)) is not None and judged.skipped:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:  # gone again, or not yet for us to see
                    continue
                if not stat.S_ISREG(status.st_mode):
                    odd.add(name)
                elif self._has_settled(name, Stamp(status.st_size, status.st_mtime_ns), now):
                    settled.append((status.st_mtime_ns, name))
        self.oddities = sorted(odd - self._odd)
        self._odd = odd
        self.left_out.discard([path for path in self.left_out.files if path not in strangers])
        self._forget_missing(names)
        present = names | {os.path.basename(path) for path in strangers}
        self._looked_into = {name: found for name, found in self._looked_into.items() if name in present}
        self._recheck_judged()
        return [name for _, name in sorted(settled)]

    def read(self, name: str, max_bytes: int = DEFAULT_MAX_IMAGE_BYTES) -> ArrivedImage | None:
        """Returns a settled file when it is complete, or when patience with it has ended; otherwise None.

        Args:
            name: one that ``poll`` returned.
            max_bytes: of a larger file nothing is kept.
        """
        waiting = self._waiting.get(name)
        if waiting is None:
            return None
        path = os.path.join(self.folder, name)
        patient = time.monotonic() - waiting.since < self._patience
        waiting.put_off = patient
        try:
            data, stamp = _read_whole(path, max_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            # It may belong to its writer alone until it is complete, as on Windows shares.
            if patient:
                return None
            why = f"the image cannot be read: {error.strerror or error}"
            return ArrivedImage(name, waiting.stamp, fault=ImageReadError(why, "IMAGE_UNREADABLE"))
        if stamp != waiting.stamp:
            self._waiting[name] = _Waiting(stamp, time.monotonic())
            return None
        if len(data) > max_bytes:
            why = f"the image has more than {max_bytes / 2**20:g} MiB: is this the right file?"
            return ArrivedImage(name, stamp, fault=ImageTooLargeError(why, "IMAGE_TOO_LARGE"))
        if has_image_end(data) is False and patient:
            return None
        waiting.put_off = False  # so that it is returned again when nobody can judge it now
        sha256 = hashlib.sha256(data).hexdigest()
        judged = self._judged.get(name)
        same = judged is not None and (judged.stamp == stamp or judged.sha256 == sha256)
        return ArrivedImage(name, stamp, data, sha256, judged=same)

    def mark_judged(self, image: ArrivedImage) -> None:
        """Says that an image has its result: it is not returned again unless its bytes change."""
        self._waiting.pop(image.name, None)
        self._judged[image.name] = _Judged(image.stamp, image.sha256, skipped=True)

    def forget(self, name: str) -> None:
        """Says that a file has left the folder: another one of its name is a new one, whatever its bytes."""
        self._waiting.pop(name, None)
        self._judged.pop(name, None)

    def adopt_result(self, name: str, sha256: str, file_stamp: FileStamp | None, *, finished: bool) -> bool:
        """Says that a file has a result from an earlier run; returns False when the last poll has not seen the file.

        Args:
            name: its name.
            sha256: what was judged; empty when that is not known.
            file_stamp: the file that was judged. One that is another now is read, and judged when its bytes differ.
            finished: False when even an unchanged file is to be returned by ``read``, as ``judged``.
        """
        if name not in self._waiting and name not in self._judged:  # a long file of results names many that are gone
            return False
        try:
            status = os.stat(os.path.join(self.folder, name), follow_symlinks=False)
        except OSError:
            return False
        stamp = Stamp(status.st_size, status.st_mtime_ns)
        same = stamp.to_file_stamp() == file_stamp
        self._judged[name] = _Judged(stamp if same else None, sha256, skipped=same and finished)
        if same and finished:
            self._waiting.pop(name, None)
        return True

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        """Whether a file is one to judge: by its name, or by its first bytes, which are read again when it has
        changed."""
        name = entry.name
        if is_image_name(name) or name in self._judged:
            return True
        if not may_be_dicom(name):
            return False
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:  # gone again, or not yet for us to see
            return False
        stamp = Stamp(status.st_size, status.st_mtime_ns)
        known = self._looked_into.get(name)
        if known is None or known[0] != stamp:
            is_dicom = stat.S_ISREG(status.st_mode) and is_dicom_file(entry.path)
            known = self._looked_into[name] = (stamp, is_dicom)
        return known[1]

    def _look_at_stranger(self, entry: os.DirEntry[str]) -> None:
        if entry.path in self.left_out.files:
            return
        try:
            # A pipe would block whoever looks into it.
            kind = FOLDER if entry.is_dir() else name_kind(entry.path) if entry.is_file() else SPECIAL
        except OSError:  # gone again, or not for us to see
            return
        if kind != SPECIAL:
            self.left_out.add(kind, entry.path)

    def _has_settled(self, name: str, stamp: Stamp, now: float) -> bool:
        waiting = self._waiting.get(name)
        if waiting is None or waiting.stamp != stamp:
            self._waiting[name] = _Waiting(stamp, now)
            return self._settle == 0
        return now - waiting.since >= (self._patience if waiting.put_off else self._settle)

    def _forget_missing(self, names: set[str]) -> None:
        for known in (self._waiting, self._judged):
            for name in [name for name in known if name not in names]:
                del known[name]

    def _recheck_judged(self) -> None:
        """Looks at some of the judged files; one that has changed waits like a new one."""
        for name in list(islice(self._judged, _RECHECKS)):
            judged = self._judged[name] = self._judged.pop(name)  # to the end, so that all have their turn
            try:
                status = os.stat(os.path.join(self.folder, name), follow_symlinks=False)
            except OSError:
                continue
            if judged.stamp != Stamp(status.st_size, status.st_mtime_ns):
                judged.skipped = False


def _read_whole(path: str, max_bytes: int) -> tuple[bytes, Stamp]:
    """Returns a file's bytes, one more than ``max_bytes`` at most, and its stamp, which held before and after.

    Raises:
        OSError: it cannot be read, or it was written to meanwhile.
    """
    with open(os.open(path, _OPEN_FLAGS), "rb") as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise OSError("it is no file")
        data = file.read(max_bytes + 1)
        after = os.fstat(file.fileno())
    stamp = Stamp(after.st_size, after.st_mtime_ns)
    if stamp != Stamp(before.st_size, before.st_mtime_ns):
        raise OSError("it is being written to")
    return data, stamp


@contextmanager
def lock_folder(folder: str) -> Iterator[None]:
    """Keeps a second watch from the folder for as long as the block lasts, where the system can.

    Raises:
        OSError: there is no such folder.
        ValueError: another watch has it.
    """
    os.scandir(folder).close()
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"another watch of {folder} is running: end it first") from None
    except OSError:  # a network share without locks
        pass
    try:
        yield
    finally:
        os.close(handle)
