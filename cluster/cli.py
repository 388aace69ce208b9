"""``python -m cluster``: the command in, exit code out."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from server.flags import LineParser
from server.process.console import guard_streams
from server.process.program import run_guarded

COMMANDS = {"score": "cluster.archive.command", "serve": "cluster.serve_command"}
"""What there is to do, by its first word → the module whose ``main`` does it."""

EPILOG = """commands (each with --help):
  python -m cluster score   judge an archive, a folder or an object store, on all machines of a Ray cluster
  python -m cluster serve   the server as an application of Ray Serve
Most who read this need neither: see docs/ray.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; usage errors exit with 2."""
    guard_streams()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the server's; nothing here multiplies
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and (module := COMMANDS.get(arguments[0])) is not None:
        return run_guarded(f"cluster {arguments[0]}", lambda: run_command(module, arguments[1:]))
    parser = LineParser("python -m cluster", "Judges archives, and serves, on a Ray cluster.", EPILOG)
    parser.add_argument("command", choices=COMMANDS)
    parser.parse_args(arguments)
    return 2


def run_command(module: str, arguments: Sequence[str]) -> int:
    """Runs a command; only now is it loaded."""
    code: int = importlib.import_module(module).main(arguments)
    return code
