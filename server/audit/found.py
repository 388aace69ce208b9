"""What a server finds at its start of the log of those before it, and where the chain goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.audit.chain import MOST_LINE_BYTES, Line, Position, read_line
from server.audit.family import Head, list_rotated, read_head
from server.machine.bounded_file import open_regular

BLOCK_BYTES = 2 * MOST_LINE_BYTES


@dataclass(frozen=True)
class Found:
    """The end of a log."""

    last: Line | None
    """Its last line; None: there is none, or it is none of ours."""

    torn_bytes: int
    """Behind the last whole line: of one whose end is missing."""

    head: Head | None

    has_head_line: bool
    """Whether the line that the head tells of is there, as it tells it; also where there is no head."""

    @property
    def is_new(self) -> bool:
        """Whether there has been no log."""
        return self.last is None and self.head is None

    @property
    def is_clean(self) -> bool:
        """Whether the server before has stopped in order, and nothing has been changed at the end since."""
        return (
            self.last is not None
            and self.last.event == "stop"
            and self.has_head_line
            and self.head is not None
            and self.head.position == self.last.position
            and not self.torn_bytes
        )

    @property
    def position(self) -> Position:
        """Behind which the chain goes on: no number is used twice."""
        secured = self.head.position if self.head else Position()
        if self.last is None or not self.last.is_sound or self.last.position.seq < secured.seq:
            return secured
        return self.last.position

    def describe(self) -> dict[str, object]:
        """The event that the first line of the new server is about, and what belongs to it."""
        if self.is_new:
            return {"event": "begin"}
        if self.is_clean:
            return {"event": "start"}
        fields: dict[str, object] = {"event": "recover", "torn_bytes": self.torn_bytes}
        if self.head is not None and not self.has_head_line:
            # Kept here, because the file it was in is about to tell of this line.
            fields |= {"secured_seq": self.head.position.seq, "secured_hash": self.head.position.hash}
        return fields


def look_back(path: Path) -> Found:
    """Finds the end of a log.

    Raises:
        OSError: it cannot be read, or is no audit log; ``strerror`` is a text for people.
    """
    head, lines = read_head(path), walk_back(path)
    torn = next(lines)
    last = raw = next(lines, None)
    last_line = read_line(last + b"\n") if last is not None else None
    if last_line is None and head is None and (last is not None or torn):
        raise OSError(errno.EINVAL, "it holds something else than an audit log", str(path))
    while raw is not None and head is not None:
        line = read_line(raw + b"\n")
        if line is None or line.position.seq <= head.position.seq:
            has_head_line = line is not None and line.is_sound and line.position == head.position
            return Found(last_line, len(torn), head, has_head_line)
        raw = next(lines, None)
    return Found(last_line, len(torn), head, head is None)


def walk_back(path: Path) -> Iterator[bytes]:
    """Yields what stands behind the last end of line, and then the lines of a log from its end, without their ends."""
    yield from read_back(path)
    for rotated in reversed(list_rotated(path)):
        lines = read_back(rotated.path)
        next(lines)
        yield from lines


def read_back(path: Path) -> Iterator[bytes]:
    """The same of one file; only as much of it is read as is asked for."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        yield b""
        return
    try:
        position, rest = os.fstat(descriptor).st_size, b""
        while position:
            start = max(0, position - BLOCK_BYTES)
            rest, *lines = (os.pread(descriptor, position - start, start) + rest).split(b"\n")
            yield from reversed(lines)
            position = start
        yield rest
    finally:
        os.close(descriptor)
