"""``python -m server``: settings in, exit code out."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.machine.memory import return_freed_memory
from server.machine.processors import count_processors
from server.process.console import guard_streams
from server.process.log import start_log, stop_log
from server.process.program import REFUSALS, check_descriptors, check_threads, run_guarded

if TYPE_CHECKING:
    from server.config import ServerConfig

logger = logging.getLogger(__name__)

COMMANDS = {
    "tune": "server.lifecycle.tune",
    "doctor": "server.lifecycle.doctor",
    "certs": "server.security.issue",
    "token": "server.security.token_command",
    "audit": "server.audit.command",
    "model": "server.lifecycle.model_command",
}
"""What ``python -m server`` does beside serving, by its first word → the module whose ``main`` does it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server. Returns 0 after a clean stop, 1 when it cannot serve; usage errors exit with 2."""
    guard_streams()
    # OpenBLAS, which comes with numpy, starts a thread for each processor of the machine. Nothing here multiplies.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # gRPC's C core writes its own lines to standard error, also about what we report in one line of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and (module := COMMANDS.get(arguments[0])) is not None:
        return run_guarded(f"server {arguments[0]}", lambda: run_command(module, arguments[1:]))
    return run_guarded("server", lambda: run_server(arguments))


def run_server(arguments: Sequence[str]) -> int:
    """Serves until a signal. Returns the exit code."""
    from server.config import read_config  # here, for numpy comes with it: it may not fit into memory

    config = read_config(arguments)
    start_log(config.log_level, config.log_format)
    try:
        return_freed_memory(count_processors())
        warn_without_cache(config)
        from server.lifecycle.app import (
            serve,  # here, so that --help and usage errors do not wait for grpc and ONNX Runtime
        )

        check_threads()
        check_descriptors()
        return serve(config)
    except REFUSALS:
        logger.debug("the start has failed", exc_info=True)
        raise
    finally:
        stop_log()


def warn_without_cache(config: ServerConfig) -> None:
    """Says that there is no place for a cache, where one is wanted: the next start is as slow as this one."""
    if config.cache_folder is None and config.cache != "off":
        logger.warning("no cache: this user has no home folder; give one with --cache, or --cache off")


def run_command(module: str, arguments: Sequence[str]) -> int:
    """Runs a command beside serving; only now is it loaded."""
    code: int = importlib.import_module(module).main(arguments)
    return code
