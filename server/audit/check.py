"""Follows a chain line by line, and says where it is not what a server has written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from server.audit.chain import GENESIS, MOST_LINE_BYTES, Line, Position, read_line
from server.audit.content import IMAGE

MOST_FAULTS = 20
"""That are told of; one is enough to know."""


@dataclass(frozen=True)
class Fault:
    """Something that no server has written, or that is not there any more."""

    file: str
    line: int
    """In the file, from 1; the last one where something is missing at the end."""

    text: str


@dataclass
class Report:
    """What a log was found to be."""

    files: int = 0
    lines: int = 0
    images: int = 0
    first_seq: int = 0
    last_seq: int = 0
    last_hash: str = ""
    state: str = "stopped"
    """Of the server that writes it: ``stopped``, ``running``, or ``killed``: it did not stop in order."""

    torn_bytes: int = 0
    """At the end, of a line that was being written when the server ended."""

    unsecured: int = 0
    """Lines at the end that the head does not know yet: of these some could have been cut off without a trace."""

    recoveries: int = 0
    """Starts after a server that had not stopped in order."""

    lost: int = 0
    """Images of which the log itself says that they have no line."""

    removed_through: int = 0
    """The last line that was removed when it had been kept long enough; 0: none was."""

    faults: list[Fault] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether there are no faults."""
        return not self.faults


class Check:
    """Reads the files of a log one after the other.

    Attributes:
        report: what was found so far.
        last_event: what the last line is about.
    """

    def __init__(self, secured: Mapping[str, Position]) -> None:
        """Has read nothing.

        Args:
            secured: lines that must be there, by what tells of them.
        """
        self.report = Report()
        self.last_event = ""
        self._secured = secured
        self._wanted = {position.seq for position in secured.values()}
        self._met: set[Position] = set()
        self._removed: dict[int, str] = {}
        self._place = ("", 0)
        self._previous: Position | None = None
        self._first: tuple[tuple[str, int], Line] | None = None
        self._is_linked = True

    def fault(self, text: str, place: tuple[str, int] | None = None) -> None:
        """Notes a fault at the line that was read last, or at another place: file and number of the line."""
        if len(self.report.faults) < MOST_FAULTS:
            self.report.faults.append(Fault(*(place or self._place), text))

    def read_file(self, name: str, file: BinaryIO) -> None:
        """Reads one file; ``name`` is what faults call it."""
        if self.report.torn_bytes:
            self.fault("its last line has no end, though the log goes on in another file")
            self.report.torn_bytes = 0
        self.report.files += 1
        self._place = (name, 0)
        while data := file.readline(MOST_LINE_BYTES):
            self._place = (name, self._place[1] + 1)
            if data.endswith(b"\n") or len(data) == MOST_LINE_BYTES:
                self._read(data)
            else:
                self.report.torn_bytes = len(data)

    def _read(self, data: bytes) -> None:
        line = read_line(data)
        if line is None:
            self.fault("it is no line of an audit log")
            self._is_linked = False  # whatever was here, what comes next need not be told of as well
            return
        if not line.is_sound:
            self.fault(f"the content of line {line.position.seq} was changed")
        if self._previous is None:
            self._first = (self._place, line)
        elif self._is_linked:
            self._check_link(self._previous, line)
        self._previous, self._is_linked = line.position, True
        if line.position.seq in self._wanted:
            self._met.add(line.position)
        self._count(line)

    def _check_link(self, previous: Position, line: Line) -> None:
        seq, expected = line.position.seq, previous.seq + 1
        if seq > expected:
            missing = f"line {expected} is" if seq == expected + 1 else f"lines {expected} to {seq - 1} are"
            self.fault(f"{missing} missing before line {seq}")
        elif seq < expected:
            self.fault(f"line {seq} stands behind line {previous.seq}: lines were moved, copied or put in")
        elif line.prev != previous.hash:
            self.fault(f"line {seq} does not belong to the line before it: that one was changed, or one was put in")

    def _count(self, line: Line) -> None:
        report, fields = self.report, line.fields
        report.lines += 1
        report.first_seq = report.first_seq or line.position.seq
        report.last_seq, report.last_hash = line.position.seq, line.position.hash
        self.last_event = line.event
        if line.event == IMAGE:
            report.images += 1
        elif line.event == "recover":
            report.recoveries += 1
            if secured := read_number(fields, "secured_seq"):
                self.fault(f"the server that wrote this did not find line {secured}, which had been on the disk")
        elif line.event == "gap":
            report.lost += read_number(fields, "lost")
        elif line.event == "expire":
            self._removed[read_number(fields, "last_seq")] = str(fields.get("last_hash"))

    def finish(self) -> None:
        """Checks the two ends, when all files have been read."""
        if self._first is None:
            self.fault("there is no line")
            return
        place, first = self._first
        before = first.position.seq - 1
        if self._removed.get(before) == first.prev:
            self.report.removed_through = before
        elif before or first.prev != GENESIS:
            self.fault(f"lines 1 to {before} are missing, and none says that they were removed after their time", place)
        for name, position in self._secured.items():
            if position.seq > self.report.last_seq:
                count = position.seq - self.report.last_seq
                self.fault(f"{count} lines are missing at the end: {name} tells of line {position.seq}")
            elif position not in self._met and position.seq > self.report.removed_through:
                self.fault(f"line {position.seq} is not the one that {name} tells of")


def read_number(fields: Mapping[str, Any], name: str) -> int:
    """A count; 0 where it is none, whatever else somebody may have written there."""
    value = fields.get(name)
    return value if type(value) is int and value > 0 else 0
