"""Which files of a log have been kept long enough."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from pathlib import Path

from server.audit.chain import Position, read_line
from server.audit.family import Rotated, list_rotated
from server.audit.found import read_back


def list_expired(path: Path, today: str, keep_months: int) -> list[Rotated]:
    """The rotated files whose day lies more than some months back, in the order in which they were written.

    Back from the last day that is over: a clock that is years ahead for once removes nothing at once.

    Args:
        path: the log.
        today: as ``20260131``.
        keep_months: 0: they are kept for ever.
    """
    files = list_rotated(path)
    if not keep_months or not files:
        return []
    oldest = months_before(min(today, files[-1].day), keep_months)
    expired: list[Rotated] = []
    for rotated in files:
        if rotated.day >= oldest:  # what comes after it stays, whatever the clock was then
            break
        expired.append(rotated)
    return expired


def months_before(day: str, months: int) -> str:
    """The same day some months earlier, or the last of that month; both as ``20260131``."""
    month = int(day[:4]) * 12 + int(day[4:6]) - 1 - months
    year, month = max(month // 12, 1), month % 12 + 1
    return f"{year:04}{month:02}{min(int(day[6:]), calendar.monthrange(year, month)[1]):02}"


def describe_removal(expired: Sequence[Rotated]) -> dict[str, object]:
    """What the log says before files are removed: which, and the last line in them, to which the next one is tied.

    Raises:
        OSError: the last of them cannot be read.
    """
    lines = read_back(expired[-1].path)
    next(lines)
    last = read_line(next(lines, b"") + b"\n")
    position = last.position if last is not None else Position()
    names = [rotated.path.name for rotated in expired]
    return {"event": "expire", "files": names, "last_seq": position.seq, "last_hash": position.hash}
