"""``python -m server``: settings in, exit code out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence

from server.config import ServerConfig, read_config
from server.console import complain, guard_streams
from server.log import start_log, stop_log
from server.memory import return_freed_memory
from server.processors import count_processors

logger = logging.getLogger(__name__)

EXIT_CANNOT_SERVE = 1
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server. Returns 0 after a clean stop, 1 when it cannot serve; usage errors exit with 2."""
    guard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["tune"]:
        return run_guarded("server tune", lambda: run_tune(arguments[1:]))
    config = read_config(arguments)
    return run_guarded("server", lambda: run_server(config))


def run_server(config: ServerConfig) -> int:
    """Serves until a signal. Returns the exit code."""
    # OpenBLAS, which comes with numpy, starts a thread for each processor of the machine. Nothing here multiplies.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # gRPC's C core writes its own lines to standard error, also about what we report in one line of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    start_log(config.log_level)
    try:
        return_freed_memory(count_processors())
        if config.cache_folder is None and config.cache != "off":
            logger.warning("no cache: this user has no home folder; give one with --cache, or --cache off")
        from server.app import serve  # here, so that --help and usage errors do not wait for grpc and ONNX Runtime

        return serve(config)
    finally:
        stop_log()


def run_tune(arguments: Sequence[str]) -> int:
    """See ``server.tune``."""
    from server.tune import main as tune

    return tune(arguments)


def run_guarded(name: str, run: Callable[[], int]) -> int:
    """Runs a program. What the machine refuses it ends it with exit code 1 and one line, and Ctrl-C with 130."""
    try:
        return run()
    except KeyboardInterrupt:
        complain(f"{name}: interrupted")
        return EXIT_INTERRUPTED
    except (OSError, MemoryError, ImportError, RuntimeError) as error:
        complain(f"{name}: error: {explain(error)}")
        return EXIT_CANNOT_SERVE


def explain(error: Exception) -> str:
    """One line about what the machine has refused."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or "bad_alloc" in first_line or "allocate memory" in first_line:
        return f"there is not enough memory to start ({first_line or 'out of memory'})"
    if isinstance(error, RuntimeError) and "start new thread" in first_line:
        return (
            "no more threads can be started: raise the limit of threads or memory for this process (ulimit -u, "
            "TasksMax, pids.max), or lower --workers and --threads"
        )
    if isinstance(error, ImportError):
        return f"a part of the program cannot be loaded: {first_line}"
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or first_line}"
    return f"{type(error).__name__}: {first_line}"
