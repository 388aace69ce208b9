"""What is on the terminal of somebody who waits: progress, as one line that is rewritten (in a log, a line now and
then)."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

TERMINAL_INTERVAL = 0.2
LOG_INTERVAL = 30.0


class Progress:
    """Prints ``what: 350/700 (50 %), 4:30 left`` to stderr, from the first call on."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._start = self._printed = time.monotonic()
        self._skipped = 0
        self._is_terminal = sys.stderr.isatty()

    def skip(self, count: int) -> None:
        """Tells that ``count`` of what is done took no time: it was done before, or was found to be needless."""
        self._skipped += count

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Shows that ``done`` of ``total`` are done; most calls print nothing."""
        now = time.monotonic()
        is_end = done >= total
        if not is_end and now - self._printed < (TERMINAL_INTERVAL if self._is_terminal else LOG_INTERVAL):
            return
        self._printed = now
        passed = now - self._start
        time_left = passed / max(1, done - self._skipped) * (total - done)
        rest = f"took {format_duration(passed)}" if is_end else f"{format_duration(time_left)} left"
        line = f"{self._what}: {done:,}/{total:,} ({100 * done // total} %), {rest}{note}"
        if self._is_terminal:
            print(f"\r\x1b[K{line}", end="\n" if is_end else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def print_line(self, line: str) -> None:
        """Prints a line that stays, above the progress."""
        print(f"\r\x1b[K{line}" if self._is_terminal else line, file=sys.stderr, flush=True)


@dataclass
class Part:
    """One of the equal parts of a job, each a training, that share the line and the time left of the whole job."""

    progress: Progress
    index: int = 0
    count: int = 1
    name: str = ""
    """Named on the line where there are several."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Shows that ``done`` of this part's ``total`` are done."""
        all_done, all_total = self.index * total + done, self.count * total
        if all_done < all_total:
            self.progress(all_done, all_total, f"{note}{f'; {self.name}' if self.name else ''}")

    def skip(self, count: int) -> None:
        """See ``Progress.skip``."""
        self.progress.skip(count)

    def print_line(self, line: str) -> None:
        """See ``Progress.print_line``."""
        self.progress.print_line(f"{self.name}: {line}" if self.name else line)


def format_duration(seconds: float) -> str:
    """Returns ``4:05`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
