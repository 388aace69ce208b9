"""Tells people that a server is waited for, when that takes longer than nobody would notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from .._errors import StrokeClientError
from .terminal import Terminal, escape

_PATIENCE_SECONDS = 1.0
"""A server that is back sooner is not worth a line."""

_EPISODE_SECONDS = 5.0
"""Without a failure for so long, the next one begins a new wait; more than the longest pause between two tries."""


class WaitNotice:
    """Takes the failures that the client waits out, and says so once for each wait.

    Args:
        say: shows it; it gets the failure.
    """

    def __init__(self, say: Callable[[StrokeClientError], None]) -> None:
        self._say = say
        self._began = self._last = float("-inf")
        self._is_said = False

    def __call__(self, failure: StrokeClientError) -> None:
        """Takes a failure. A busy server is none to speak of: it answers."""
        if failure.code == "RESOURCE_EXHAUSTED":
            return
        now = time.monotonic()
        if now - self._last > _EPISODE_SECONDS:
            self._began, self._is_said = now, False
        self._last = now
        if not self._is_said and now - self._began >= _PATIENCE_SECONDS:
            self._is_said = True
            self._say(failure)


def notice_on(stream: TextIO, server: str) -> WaitNotice | None:
    """Returns what says on a terminal that ``server`` is waited for; None where nobody is watching."""
    if not stream.isatty():
        return None

    def say(failure: StrokeClientError) -> None:
        # From the beginning of the line, on which a progress bar may stand; it is drawn again below.
        erase = "\r\x1b[K" if Terminal(stream).is_capable else "\n"
        print(erase + escape(f"waiting for the server at {server}: {failure}"), file=stream, flush=True)

    return WaitNotice(say)
