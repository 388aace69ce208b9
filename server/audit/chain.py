"""The chain: every line ends with the SHA-256 of all that stands before it, the hash of the line before it included.

A line is ``{"seq":2,"prev":"<hash of line 1>",…,"hash":"<hash>"}``. What is hashed are its bytes up to the comma before
``"hash"``. So whoever has the last hash can tell whether any line before it is another one than was written, and
``sha256sum`` is all that is needed to check one by hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GENESIS = "0" * 64
"""Stands for the hash of a line before the first."""

MOST_LINE_BYTES = 65_536
"""Far more than a line of ours has."""

SEAL = b',"hash":"'
SEAL_BYTES = len(SEAL) + 64 + len(b'"}\n')


@dataclass(frozen=True, slots=True)
class Position:
    """A line's place in the chain."""

    seq: int = 0
    """Its number; lines count from 1, so that 0 is before them all."""

    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was read."""

    fields: Mapping[str, Any]
    position: Position
    """What it says of itself."""

    prev: str
    """What it says is the hash of the line before it."""

    is_sound: bool
    """Whether its hash is that of its content."""

    @property
    def event(self) -> str:
        """What it is about."""
        return str(self.fields.get("event"))


def seal(position: Position, fields: Mapping[str, object]) -> tuple[bytes, Position]:
    """Makes the line that follows another one. Returns its bytes, the end of line included, and its place.

    Args:
        position: of the line before it.
        fields: what it is to say. Whatever text is in it, the line is ASCII, and one line.
    """
    said = {"seq": position.seq + 1, "prev": position.hash, **fields}
    content = json.dumps(said, separators=(",", ":")).encode("ascii")[:-1]
    digest = hashlib.sha256(content).hexdigest()
    return b'%b%b%b"}\n' % (content, SEAL, digest.encode("ascii")), Position(position.seq + 1, digest)


def read_line(data: bytes) -> Line | None:
    """Reads a line with its end; None: it is none of this log."""
    content, end = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
    if not (end.startswith(SEAL) and end.endswith(b'"}\n')):
        return None
    try:
        fields = json.loads(data)
        seq, prev, digest = fields["seq"], fields["prev"], fields["hash"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if type(seq) is not int or seq < 1 or not isinstance(prev, str) or not isinstance(digest, str):
        return None
    return Line(fields, Position(seq, digest), prev, hashlib.sha256(content).hexdigest() == digest)
