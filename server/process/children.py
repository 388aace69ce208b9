"""A program and the processes that it starts: however it is ended, they end with it. For programs that measure; servers
know when they stop. Standard library alone: loads run in other servers' environments.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing import parent_process
from types import FrameType
from typing import Any, NoReturn

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
"""As shells have it: 128, and the signal's number."""

PR_SET_PDEATHSIG = 1
"""Of prctl(2): which signal the kernel sends a process when the thread that started it ends."""


def run_main(main: Callable[[], int]) -> NoReturn:
    """Runs a program, and exits with its code. SIGTERM ends it as Ctrl-C does: by way of everything that stops what was
    started and removes what was written for a while. A second one ends it at once."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        code = main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code)


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """What SIGTERM does."""
    signal.signal(number, signal.SIG_DFL)
    print("stopped", file=sys.stderr)
    raise SystemExit(EXIT_TERMINATED)


def start(command: Sequence[str], *, wrap: Sequence[str] = (), **options: Any) -> subprocess.Popen[Any]:
    """Starts a process that is sent SIGTERM when the thread that calls this ends, or this whole process, be it by
    SIGKILL.

    Args:
        command: the program and its words.
        wrap: what stands before it, such as ``taskset``, and must end in the same process.
        options: of ``subprocess.Popen``.
    """
    return subprocess.Popen([*wrap, *find_guard(), *command], **options)


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """``start``, and waits for its end; ``options`` are those of ``subprocess.run``."""
    return subprocess.run([*find_guard(), *command], **options)


@cache
def find_guard() -> tuple[str, ...]:
    """What stands before a command so that the kernel ends it with its parent: setpriv(1). Not a function between fork
    and exec, which would run gRPC's handlers of forks. Empty where there is no such program; then what was started is
    ended by what started it alone."""
    return ("setpriv", "--pdeathsig", "TERM") if sys.platform == "linux" and shutil.which("setpriv") else ()


def end_with_parent() -> None:
    """Has this process, one of a pool, end with the one that started it: a pool's processes would wait for ever. For
    ``initializer`` of ``ProcessPoolExecutor``."""
    parent = parent_process()
    if sys.platform != "linux" or parent is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent.pid:  # it has ended before it could be said
        os.kill(os.getpid(), signal.SIGTERM)
