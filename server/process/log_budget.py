"""How many lines of one kind the log takes: a flood of refused calls must not fill the disk.

What is over is counted, and said in one line a second a kind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

from server.process.log_lines import Entry

LINES = 20
"""Of one kind in a second: 150 kB a minute."""

MOST_KINDS = 200
"""Of a second; what comes then is one kind together. More than there are reasons."""

MOST_SHOWN = 100
"""Characters of a message by which a summary names its kind."""


class LogBudget:
    """Decides which lines are written. Safe to call from many threads, and from a signal handler.

    Attributes:
        suppressed: lines that were counted instead of written, ever.
    """

    def __init__(self, write: Callable[[str], None], lines: int = LINES) -> None:
        """Has seen nothing.

        Args:
            write: takes a summary; must neither block nor raise.
            lines: of one kind that are written in a second.
        """
        self.suppressed = 0
        self._write = write
        self._lines = lines
        self._lock = threading.RLock()  # held for a few instructions, as the writer's
        self._second = 0
        self._counts: Counter[str] = Counter()
        self._is_due = False

    def admits(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be written. Each is that callers cannot make many of: those below a warning."""
        kind = find_kind(record)
        if not kind:
            return True
        now = int(time.monotonic())
        with self._lock:
            if now != self._second:
                self.tell()
                self._second = now
            if kind not in self._counts and len(self._counts) >= MOST_KINDS:
                kind = "other lines"
            self._counts[kind] += 1
            if self._counts[kind] <= self._lines:
                return True
            self.suppressed += 1
            if not self._is_due:
                self._is_due = True
                self._wait()
        return False

    def tell(self) -> None:
        """Writes how many lines of each kind were not written, and begins to count again."""
        with self._lock:
            over = {kind: count - self._lines for kind, count in self._counts.items() if count > self._lines}
            self._counts.clear()
            self._is_due = False
        for kind, count in over.items():
            self._write(f"{count} more lines such as: {kind}")

    def _wait(self) -> None:
        """Tells in a second, in case that nothing comes until then."""
        timer = threading.Timer(1.0, self.tell)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no more threads: the next line tells
            self._is_due = False


def find_kind(record: logging.LogRecord) -> str:
    """What a record has in common with those that say the same; empty: it is always written."""
    if isinstance(record.msg, Entry):
        return record.msg.kind
    if record.levelno < logging.WARNING:
        return ""
    return f"{record.name} {str(record.msg)[:MOST_SHOWN]}"
