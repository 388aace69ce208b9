"""What the command line prints: one line or JSON object per image, faults, a progress bar and a summary."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from client._results import failure_to_json, prediction_to_json

if TYPE_CHECKING:
    from client._errors import StrokeClientError
    from client._types import Prediction

_REDRAW_SECONDS = 0.1
_ERASE_LINE = "\r\x1b[K"


class Report:
    """Prints the results of one invocation as they come: results to stdout, everything else to stderr.

    Args:
        total: number of images that there will be.
        as_json: print JSON objects instead of text.
    """

    def __init__(self, total: int, *, as_json: bool) -> None:
        self._total = total
        self._as_json = as_json
        self._labels: Counter[str] = Counter()
        self._started = time.monotonic()
        self._progress = Progress(total, sys.stderr)
        self.failed = 0
        """Number of images so far that were not judged."""

    def add_prediction(self, name: str, prediction: Prediction) -> None:
        self._labels[prediction.label] += 1
        if self._as_json:
            self._print(json.dumps(prediction_to_json(name, prediction)), sys.stdout)
        else:
            self._print(escape(f"{name}: {prediction}"), sys.stdout)
            for warning in prediction.warnings:
                self._print(escape(f"{name}: warning: {warning.message}"), sys.stderr)
        self._draw()

    def add_failure(self, name: str, error: StrokeClientError) -> None:
        self.failed += 1
        if self._as_json:
            self._print(json.dumps(failure_to_json(name, error)), sys.stdout)
        self._print(escape(f"{name}: error: {error}"), sys.stderr)
        self._draw()

    def close(self) -> None:
        """Erases the progress bar and, when there was more than one image, prints the summary."""
        self._progress.erase()
        if self._total < 2:
            return
        answered = self._labels.total()
        labels = ", ".join(f"{label} {count}" for label, count in sorted(self._labels.items()))
        parts = [f"{answered} answered" + (f" ({labels})" if labels else ""), f"{self.failed} failed"]
        if missing := self._total - answered - self.failed:
            parts.append(f"{missing} without an answer")
        rate = answered / max(time.monotonic() - self._started, 1e-3)
        print(escape(f"{self._total} images: {', '.join(parts)}; {rate:.1f} images/s"), file=sys.stderr)

    def _print(self, line: str, stream: TextIO) -> None:
        self._progress.erase()  # it may be on the same terminal
        print(line, file=stream, flush=True)

    def _draw(self) -> None:
        self._progress.draw(self._labels.total() + self.failed)


class Progress:
    """A line with count, rate and time left; nothing unless ``stream`` is a terminal and there are several images."""

    def __init__(self, total: int, stream: TextIO | None) -> None:
        self._total = total
        self._stream = stream
        self._wanted = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb" and total > 1
        self._line = ""
        self._visible = False
        self._started = self._computed_at = time.monotonic()

    def draw(self, done: int) -> None:
        """Shows the line; its figures change ten times a second, so that they can be read."""
        if not self._wanted or self._stream is None:
            return
        now = time.monotonic()
        if not self._line or now - self._computed_at >= _REDRAW_SECONDS:
            self._computed_at = now
            rate = done / max(now - self._started, 1e-3)
            filled = 20 * done // self._total
            bar = "#" * filled + "." * (20 - filled)
            left = (self._total - done) / rate
            self._line = f"[{bar}] {done}/{self._total}  {rate:.1f}/s  {left:.0f} s left"
        elif self._visible:
            return
        self._stream.write(_ERASE_LINE + self._line)
        self._stream.flush()
        self._visible = True

    def erase(self) -> None:
        """Removes the line, so that something else can be printed."""
        if self._visible and self._stream is not None:
            self._stream.write(_ERASE_LINE)
            self._stream.flush()
            self._visible = False


def escape(text: str) -> str:
    """Returns ``text`` on one line and without control characters: file names and servers may hold any."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
