"""How a program ends where the machine does not let it run: one line, and an exit code that says so."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from server.process.console import complain

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
GRPC_THREADS = 12
"""Seen: gRPC has 8 when it serves, with two workers. A few more, for where there are more processors."""

GRPC_DESCRIPTORS = 16
"""Twice what a server without any caller has open."""

REFUSALS = (OSError, MemoryError, ImportError, RuntimeError)
"""What Python and the runtimes raise where there is no memory, thread, file or descriptor. The runtimes know no better
than RuntimeError, and a library that does not fit into memory is an ImportError."""

MEMORY_WORDS = ("bad_alloc", "bad allocation", "allocate memory", "failed to map segment")
"""How C++, the C library and the dynamic linker say that there is no memory."""


def check_threads(count: int = GRPC_THREADS) -> None:
    """Starts so many threads at the same time, and ends them.

    gRPC waits for ever for a thread that it cannot start (seen with 1.85 and a small ``ulimit -v`` or ``pids.max``), so
    that is found out before.

    Raises:
        RuntimeError: they cannot be started.
    """
    enough = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=enough.wait, name="probe", daemon=True)
            thread.start()
            started.append(thread)
    finally:
        enough.set()
        for thread in started:
            thread.join()


def check_descriptors(count: int = GRPC_DESCRIPTORS) -> None:
    """Opens so many files at the same time, and closes them: gRPC aborts the process where it cannot.

    Raises:
        OSError: they cannot be opened.
    """
    with contextlib.ExitStack() as opened:
        for _ in range(count):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))


def watch_interrupts() -> Callable[[], bool]:
    """Returns what tells whether Ctrl-C was pressed since; only the second one raises KeyboardInterrupt.

    A library that is at work when it is raised makes another error of it (seen with ONNX Runtime: the model is broken).
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or somebody else's
        return lambda: False
    seen: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, interrupt)
    return lambda: bool(seen)


def run_guarded(name: str, run: Callable[[], int]) -> int:
    """Runs a program. What the machine refuses it ends it with exit code 1 and one line, Ctrl-C with 130.

    Args:
        name: begins the line.
        run: returns the exit code.
    """
    try:
        return run()
    except KeyboardInterrupt:
        complain(f"{name}: interrupted")
        return EXIT_INTERRUPTED
    except REFUSALS as error:
        complain(f"{name}: error: {explain(error)}")
        return EXIT_FAILED


def explain(error: Exception) -> str:
    """One line about what the machine has refused, and what helps."""
    while isinstance(error, ImportError) and isinstance(error.__cause__, ImportError):
        error = error.__cause__  # numpy wraps it into a page of advice
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or any(word in first for word in MEMORY_WORDS):
        return f"there is not enough memory ({first or 'the system gives no more'}): raise the limit of this process"
    if isinstance(error, RuntimeError) and ("start new thread" in first or "pthread" in first):
        return (
            "no more threads can be started: raise this process's limit of threads or memory (ulimit -u, TasksMax, "
            "pids.max), or lower --workers and --threads"
        )
    if isinstance(error, ImportError):
        return f"a part of the program cannot be loaded: {first}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror}: raise this process's limit of open files (ulimit -n, LimitNOFILE)"
    if isinstance(error, OSError):
        return f"{error.filename or 'the system refuses'}: {error.strerror or first}"
    return f"{type(error).__name__}: {first}"
