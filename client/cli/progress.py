"""A progress bar that never takes more than one line."""

from __future__ import annotations

import time

from .terminal import Terminal

_REDRAW_SECONDS = 0.1
_ERASE_LINE = "\r\x1b[K"
_MOST_BAR = 30
_LEAST_BAR = 6


class Progress:
    """A line with count, rate and time left; nothing unless it goes to a terminal and there are several images.

    Args:
        total: number of images, those that an earlier run answered included.
        terminal: where it is shown.
        done: number of images that an earlier run answered.
        is_wanted: False: show nothing.
    """

    def __init__(self, total: int, terminal: Terminal, *, done: int = 0, is_wanted: bool = True) -> None:
        self._total = total
        self._terminal = terminal
        self._is_wanted = is_wanted and terminal.is_capable and total > 1
        self._done_before = done
        self._columns = 0
        self._visible = False
        self._started = self._drawn_at = time.monotonic()

    def draw(self, done: int) -> None:
        """Shows the line for ``done`` images. As long as it stays, it changes ten times a second, to be readable."""
        if not self._is_wanted:
            return
        now = time.monotonic()
        # The last column stays free: some terminals go on to the next line as soon as it is written to.
        columns = self._terminal.columns - 1
        if self._visible and columns == self._columns and now - self._drawn_at < _REDRAW_SECONDS:
            return
        self._columns, self._drawn_at = columns, now
        rate = (done - self._done_before) / max(now - self._started, 1e-3)
        self._write(_ERASE_LINE + format_progress(done, self._total, rate, columns))
        self._visible = True

    def erase(self) -> None:
        """Removes the line, so that something else can be printed."""
        if self._visible:
            self._write(_ERASE_LINE)
            self._visible = False

    def _write(self, text: str) -> None:
        if self._terminal.stream is not None:
            self._terminal.stream.write(text)
            self._terminal.stream.flush()


def format_progress(done: int, total: int, rate: float, columns: int) -> str:
    """Returns the line in at most ``columns`` columns; what matters least is left out first.

    Args:
        done: images that are done, in [0, total].
        total: images there are, > 0.
        rate: images/s.
        columns: room.
    """
    count = f"{done}/{total}"
    left = format_duration((total - done) / rate) + " left" if rate > 0 else ""
    pace = f"{rate:.1f}/s" if rate < 100 else f"{rate:.0f}/s"
    for parts in ((count, pace, left), (count, left), (count,)):
        text = "  ".join(part for part in parts if part)
        if len(text) <= columns:
            break
    size = min(columns - len(text) - 3, _MOST_BAR)
    if size >= _LEAST_BAR:
        filled = size * done // total
        text = f"[{'#' * filled}{'.' * (size - filled)}] {text}"
    return text[:columns]


def format_duration(seconds: float) -> str:
    """Returns ``8 s``, ``4 min`` (rounded up) or ``2 h 05 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = int(-(-seconds // 60))
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
