"""How signals end a run in order: what is being written is finished, what is waited for is not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

EXIT_INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended."""


class Interruption:
    """While the ``with`` block lasts, the first Ctrl-C raises KeyboardInterrupt outside of ``shielded`` code, and the
    second ends the process.

    A program that was started with Ctrl-C ignored, as by nohup, goes on ignoring it.
    """

    def __init__(self) -> None:
        self.is_requested = False
        """Ctrl-C was pressed."""

        self._is_shielded = False
        self._is_installed = False

    def __enter__(self) -> Interruption:
        is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_default and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle)
            self._is_installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Code that is not interrupted half-way: KeyboardInterrupt comes after it."""
        self._is_shielded = True
        try:
            yield
        finally:
            self._is_shielded = False
        if self.is_requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_requested:
            os._exit(EXIT_INTERRUPTED)
        self.is_requested = True
        if not self._is_shielded:
            raise KeyboardInterrupt


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
        self.exit_status = EXIT_INTERRUPTED if number == signal.SIGINT else 0
        self.stop()
        if again or self._interruptible:
            raise KeyboardInterrupt
