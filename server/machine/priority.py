"""Work that lets all other work go before it.

On Linux each thread has a priority of its own, and a thread inherits that of the one which starts it. A process may
lower priorities and, unless it is privileged, not raise them again. So such work has a thread of its own, and what that
thread starts has to be looked at: a pool of threads that others use must not be made by it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")

LOW_PRIORITY = 10
"""As nice(1) counts: a busy processor does nine times as much for a thread without one.

Not the least one, 19: a thread that is put aside while it holds Python's lock keeps all others waiting, and for the
longer, the lower its priority is, where other programs want the processors, too. Measured on such a box, of 0, 5, 10
and 19 it is 10 that costs answers in flight least."""

LEAST_PRIORITY = 19
"""For processes with nothing but such work, whose lock nobody else waits for."""


def lower_priority(priority: int = LOW_PRIORITY) -> None:
    """Lowers the priority of this thread for good, where it has one of its own. Never raises."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), priority)


def call_quietly(function: Callable[[], Result]) -> Result:
    """Calls ``function`` in a thread of low priority, and returns or raises what it does."""
    return call_in_thread(function, lower_priority)


def call_in_thread(function: Callable[[], Result], prepare: Callable[[], None] = lambda: None) -> Result:
    """Calls ``function`` in a thread of its own, after ``prepare``, and returns or raises what it does."""
    outcome: list[Any] = []
    fault: list[BaseException] = []

    def work() -> None:
        prepare()
        try:
            outcome.append(function())
        except BaseException as error:
            fault.append(error)

    thread = threading.Thread(target=work, name="aside", daemon=True)
    thread.start()
    thread.join()
    if fault:
        try:
            raise fault.pop()
        finally:
            del fault
    result: Result = outcome.pop()
    return result


def call_here(function: Callable[[], Result]) -> Result:
    """Calls ``function``."""
    return function()
