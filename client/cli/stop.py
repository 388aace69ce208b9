"""Signals that end a long run in order: what is being written is finished, what is waited for is not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """Takes SIGINT and SIGTERM while a ``with`` block lasts, which is for the main thread alone.

    The first signal sets ``stopping`` and ends waiting; the second raises ``KeyboardInterrupt`` at any point.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._interruptible = False
        self._previous: dict[int, Any] = {}
        self.exit_status = 0
        """130 after Ctrl-C, 0 otherwise."""

    @property
    def stopping(self) -> bool:
        """True once a signal has come."""
        return self._event.is_set()

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Where a parent had Ctrl-C ignored, as shells do for what runs in the background, it stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stop(self) -> None:
        """Does what the first signal does, from any thread."""
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Sleeps, no longer than until a signal comes."""
        self._event.wait(seconds)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, the first signal raises ``KeyboardInterrupt``, too: for waiting whose end nobody needs."""
        self._interruptible = True
        try:
            if self.stopping:
                raise KeyboardInterrupt
            yield
        finally:
            self._interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.stopping
        self.exit_status = 130 if number == signal.SIGINT else 0
        self.stop()
        if again or self._interruptible:
            raise KeyboardInterrupt
