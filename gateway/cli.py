"""``python -m gateway``: commands by their first word."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from server.flags import LineParser
from server.process.console import guard_streams
from server.process.program import run_guarded

COMMANDS = {
    "judge": "gateway.folder.command",
    "listen": "gateway.listen.command",
    "mercure": "gateway.folder.mercure",
    "worklist": "gateway.worklist.command",
}
"""First word → the module whose ``main`` does it; loaded only then."""


def build_parser() -> LineParser:
    """The command line without a command."""
    parser = LineParser(
        prog="python -m gateway",
        description="Carries studies from a hospital's archive to the server, and results back.",
        epilog=(
            "examples:\n"
            "  python -m gateway listen --queue queue --send-to ARCHIVE@10.0.0.5:104\n"
            "  python -m gateway judge study --out results\n"
            "  python -m gateway listen --help\n\n"
            "Exit codes: 0 done, 1 failed (one line says why), 2 usage.\n"
            "Research software. Not a medical device, not for diagnosis."
        ),
    )
    parser.add_argument("command", choices=sorted(COMMANDS), help="what to do; COMMAND --help shows its settings")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command. Returns 0 when it is done, 1 when it failed; usage errors exit with 2."""
    guard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    command: str = build_parser().parse_args(arguments[:1]).command
    module = importlib.import_module(COMMANDS[command])
    return run_guarded(f"gateway {command}", lambda: module.main(arguments[1:]))
