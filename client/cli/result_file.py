"""A file of results that outlives crashes: locked, appended record by record, a torn end cut off."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO

from .results import Fields, Record, ResultFileError, ResultFormat, ResultWriteError

if sys.platform != "win32":
    import fcntl

_SYNC_SECONDS = 1.0
"""Results that a power cut may take: those of the last second. A killed process loses none that were written."""

_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""How network shares and the like say that they know no fsync; a disk that fails or is full says something else."""


class ResultFile:
    """Appends records to a file that nobody else writes; makes it when it is not there.

    What a killed run left of its last line is cut off, so that the file always consists of whole records.

    Args:
        path: the file.
        result_format: how records are written.
        resume: go on with what the file holds; False: refuse one that holds anything.

    Raises:
        ResultFileError: another run writes it, or it holds something else.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, result_format: ResultFormat, *, resume: bool = True) -> None:
        self.path = path
        self._format = result_format
        self._file = _open_locked(path)
        self._synced_at = time.monotonic()
        try:
            found = os.fstat(self._file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ResultFileError(f"{path} is no regular file: use --json or --csv - and the shell's redirection")
            if not resume and found.st_size > len(result_format.header):
                raise ResultFileError(f"{path} exists: add --resume to go on with it, or name another file")
            self._cut_torn_end()
            if self._file.tell() == 0:
                self._file.write(result_format.header)
        except BaseException:
            self._file.close()
            raise

    def records(self) -> Iterator[Fields]:
        """Yields the records that the file holds, as JSON has them.

        Raises:
            ResultFileError: the file holds something else.
        """
        for fields, _ in self._decode():
            yield fields

    def keep_only(self, wanted: Callable[[Fields], bool]) -> None:
        """Removes the other records; a crash leaves either the file as it was or the new one.

        Raises:
            ResultFileError: the file holds something else.
            OSError: there is no room for a second file.
        """
        part = self.path + ".part"
        fresh = open(part, "w+b", buffering=0)  # noqa: SIM115  # stays open, and with it the lock
        try:
            _lock(fresh, self.path)
            with open(part, "ab") as buffered:
                buffered.write(self._format.header)
                for fields, line in self._decode():
                    if wanted(fields):
                        buffered.write(self._format.fit(line))
            sync_file(fresh.fileno())
            os.replace(part, self.path)
        except BaseException:
            fresh.close()
            with suppress(OSError):
                os.unlink(part)
            raise
        self._file.close()
        fresh.seek(0, os.SEEK_END)
        self._file = fresh

    def write(self, record: Record) -> None:
        """Appends one record in a single write.

        Raises:
            OSError: it cannot be written; it has the file's name.
        """
        try:
            if self._format.widen(record):
                self.keep_only(lambda fields: True)
            data = memoryview(self._format.encode(record))
            while data:  # a nearly full disk takes less than it is given, then raises
                data = data[self._file.write(data) :]
        except OSError as error:
            raise ResultWriteError(error.errno, error.strerror, self.path) from None
        if time.monotonic() - self._synced_at >= _SYNC_SECONDS:
            self.sync()

    def close(self) -> None:
        """Brings what was written to the disk and unlocks the file. May be called twice."""
        if not self._file.closed:
            with self._file:
                self.sync()

    def sync(self) -> None:
        """Brings what was written to the disk, for a caller that goes on to do what cannot be undone.

        Raises:
            OSError: the disk fails, or has no room; it has the file's name.
        """
        try:
            sync_file(self._file.fileno())
        except OSError as error:
            raise ResultWriteError(error.errno, error.strerror, self.path) from None
        self._synced_at = time.monotonic()

    def _decode(self) -> Iterator[tuple[Fields, bytes]]:
        with open(self.path, "rb") as lines:
            try:
                yield from self._format.decode(lines)
            except ValueError as error:
                raise ResultFileError(f"{self.path}: {error}: name another file") from None

    def _cut_torn_end(self) -> None:
        """Leaves the position at the end of the last whole record."""
        end = sum(len(line) for _, line in self._decode())
        if self._format.header:
            # As it is in the file: another program may have written it anew, with other line ends.
            first = self._file.readline()
            while first.count(b'"') % 2 and (line := self._file.readline()):  # a class may have any name
                first += line
            end = end + len(first) if first.endswith(b"\n") else 0
        self._file.truncate(end)
        self._file.seek(end)


def sync_file(descriptor: int) -> None:
    """Brings an open file to the disk, where the file system can.

    Raises:
        OSError: the disk fails, or has no room.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _open_locked(path: str) -> BinaryIO:
    """Opens a file without buffer, so that a written record has left the process, and locks it."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        try:
            _lock(file, path)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:  # removed since; made again
            pass
        except BaseException:
            file.close()
            raise
        file.close()  # replaced by ``keep_only`` of another run before the lock was taken


def _lock(file: BinaryIO, path: str) -> None:
    """Locks until the file is closed, however its process ends.

    Windows has no such lock; there, and on network shares without locks, two runs are not kept apart.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = f"{path} is being written by another run: wait for it, or name another file"
            raise ResultFileError(why) from None
        except OSError:
            pass
