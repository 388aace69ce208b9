"""The file that is written: found again at the start, appended to, secured, rotated. For one thread."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

from server.audit.chain import MOST_LINE_BYTES, Line, Position, read_line
from server.audit.content import describe_time
from server.audit.family import Head, name_rotated, open_private, sync_folder, write_head
from server.audit.found import look_back


class ChainFile:
    """The end of a chain on the disk.

    Attributes:
        found: what was there when it was opened.
        position: of the last line that was written.
        day: of the lines in the file, as ``20260131``; empty while it has none.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        """Opens the file, made if need be.

        Args:
            path: the file.
            most_bytes: it is rotated before it becomes larger, unless a single line is.

        Raises:
            OSError: it cannot be opened or read, or holds something else than an audit log.
        """
        self._path = path
        self._most_bytes = most_bytes
        self.found = look_back(path)  # before anything is done to a file that may not be ours
        self.position = self.found.position
        self._descriptor = open_private(path, os.O_RDWR | os.O_APPEND)
        self._size = os.fstat(self._descriptor).st_size - self.found.torn_bytes
        self._is_torn = self.found.torn_bytes > 0
        self.day, self._first_seq = self._read_beginning() if self._size else ("", 0)

    def _read_beginning(self) -> tuple[str, int]:
        first = read_line(os.pread(self._descriptor, MOST_LINE_BYTES, 0).partition(b"\n")[0] + b"\n")
        if first is not None and re.fullmatch("[0-9]{8}", day := day_of(first)):
            return day, first.position.seq
        # It was altered, and verify says so; a name for it that no other file has.
        return day_of_time(describe_time(os.fstat(self._descriptor).st_mtime)), self.position.seq + 1

    def has_room(self, size: int, day: str, pending: int = 0) -> bool:
        """Whether a line of ``size`` bytes and of that day belongs into this file, behind ``pending`` bytes more."""
        there = self._size + pending
        return not there or (there + size <= self._most_bytes and (not self._size or day <= self.day))

    def append(self, lines: bytes, position: Position, day: str) -> None:
        """Writes whole lines, or none.

        Args:
            lines: at least one.
            position: of the last of them.
            day: of the first of them.

        Raises:
            OSError: none was written.
        """
        if self._is_torn:
            os.ftruncate(self._descriptor, self._size)
            self._is_torn = False
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self._is_torn = len(rest) < len(lines)
            with suppress(OSError):  # otherwise before the next line
                os.ftruncate(self._descriptor, self._size)
                self._is_torn = False
            raise
        if not self._size:
            self.day, self._first_seq = day, self.position.seq + 1
        self._size += len(lines)
        self.position = position

    def secure(self, time: str) -> None:
        """Returns when what was written is on the disk, and the head says so.

        Raises:
            OSError: it may not be.
        """
        os.fsync(self._descriptor)
        write_head(self._path, Head(self.position, time))

    def rotate(self, time: str) -> None:
        """Puts the file aside and goes on in a new one.

        Raises:
            OSError: it was not put aside, or there is no new one yet: to be called again.
        """
        self.secure(time)
        if self._size:
            aside = name_rotated(self._path, self.day, self._first_seq)
            if aside.exists():
                raise OSError(errno.EEXIST, "there is such a file already", str(aside))
            with suppress(FileNotFoundError):  # put aside by somebody else
                os.rename(self._path, aside)
        self.reopen()

    def reopen(self) -> None:
        """Goes on in the file that has the name now, which is a new one where the old one was moved.

        Raises:
            OSError: it cannot be opened: the old one goes on.
        """
        descriptor = open_private(self._path, os.O_RDWR | os.O_APPEND)
        new = os.fstat(descriptor)
        if os.path.samestat(new, os.fstat(self._descriptor)):
            os.close(descriptor)
            return
        sync_folder(self._path)
        os.close(self._descriptor)
        self._descriptor, self._size, self._is_torn = descriptor, new.st_size, False
        self.day = self.day if new.st_size else ""

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)


def day_of(line: Line) -> str:
    """The day that a line is of, as ``20260131``."""
    return day_of_time(str(line.fields.get("time")))


def day_of_time(time: str) -> str:
    """``2026-01-31T12:00:00.123Z`` → ``20260131``."""
    return time[:10].replace("-", "")
