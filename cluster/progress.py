"""What somebody who waits sees: one line that is rewritten, and in a log a line now and then."""

from __future__ import annotations

import sys
import time

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 30.0


class Progress:
    """Prints ``judging: 350/700 files (50 %), 4:30 left`` on standard error."""

    def __init__(self, skipped: int = 0) -> None:
        """``skipped`` is how much of what is done has taken no time of this run."""
        self._started = self._shown = time.monotonic()
        self._skipped = skipped
        self._is_terminal = sys.stderr.isatty()

    def note(self, what: str, done: int, total: int | None = None) -> None:
        """Tells how far it is; most calls print nothing. Without a total there is nothing to say of the rest."""
        now = time.monotonic()
        if now - self._shown < (TERMINAL_SECONDS if self._is_terminal else LOG_SECONDS):
            return
        self._shown = now
        if total is None:
            self._print(f"{what}: {done:,} files")
            return
        left = (now - self._started) / max(1, done - self._skipped) * (total - done)
        self._print(f"{what}: {done:,}/{total:,} files ({100 * done // total} %), {format_duration(left)} left")

    def end(self) -> None:
        """Leaves the line free for what comes."""
        if self._is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _print(self, line: str) -> None:
        if self._is_terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def format_duration(seconds: float) -> str:
    """Returns ``4:05`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
