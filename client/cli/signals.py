"""Ctrl-C that ends a run between two results, and at once when it is pressed again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
