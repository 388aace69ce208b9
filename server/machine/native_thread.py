"""A thread in which native objects are made and dropped, and that outlives them all.

Some libraries leave something on the thread that makes an object, and take it away when the object is dropped, wherever
that is. OpenVINO's CPU plugin gives it an alternate signal stack (for AMX), which it unmaps with the last object of its
``Core``. On the main thread that is fatal: Python's handlers run on the alternate stack, so the next SIGTERM ends the
process by SIGSEGV instead of draining it.
"""

from __future__ import annotations

import queue
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}
"""Signals of the thread's own faults, which must not be blocked."""


class NativeThread:
    """One such thread, started when it is first needed. It is never stopped, and holds up no exit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_started = False

    def call(self, function: Callable[[], Result]) -> Result:
        """Calls ``function`` in the thread, and returns or raises what it does."""
        self._start()
        answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

        def answer() -> None:
            try:
                answers.put((True, function()))
            except BaseException as error:
                # Without its traceback, whose frames would carry native objects into the caller's thread.
                answers.put((False, error.with_traceback(None)))

        self._tasks.put(answer)
        del answer
        is_good, value = answers.get()
        if not is_good:
            raise value
        result: Result = value
        return result

    def drop_with(self, owner: object, held: list[Any]) -> None:
        """Empties ``held`` in the thread once ``owner`` is gone; at the end of the process nothing is dropped.

        What is in ``held`` must be referred to from nowhere else by then.
        """
        weakref.finalize(owner, self._tasks.put, held.clear).atexit = False

    def _start(self) -> None:
        with self._lock:
            if not self._is_started:
                self._is_started = True
                threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            # The threads that the library starts from here inherit it: signals are the main thread's.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - FAULTS)
        while True:
            self._tasks.get()()
