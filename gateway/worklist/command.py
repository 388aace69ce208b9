"""``python -m gateway worklist``: prints the worklist of a queue."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.worklist.order import Worklist, WorklistError, read_worklist, write_csv, write_json
from server.flags import REQUIRED, LineParser, check_settings, parse_settings, require, setting
from server.process.console import complain, say


@dataclass(frozen=True)
class WorklistSettings:
    """Which queue, and how it is printed."""

    queue: Path = setting(REQUIRED, "folder of the queue that listen writes", metavar="QUEUE", positional=True)
    csv: bool = setting(False, "print it as CSV")
    json: bool = setting(False, "print it as JSON, with all that is kept of each answer")

    def __post_init__(self) -> None:
        check_settings(self)
        require(self.csv != self.json, "csv", "or --json must be given, one of them")


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns 0 when it is done; 2 when there is no queue."""
    parser = LineParser(
        prog="python -m gateway worklist",
        description="Prints which study to look at first: positive, then not analysed, then the rest.",
        epilog=(
            "examples:\n"
            "  python -m gateway worklist /var/lib/stroke/queue --csv\n"
            "  python -m gateway worklist /var/lib/stroke/queue --json\n\n"
            "The server shows it as a page: python -m server --http 127.0.0.1:8000 --worklist QUEUE/worklist.json\n"
            "Exit codes: 0 done, 1 failed (one line says why), 2 usage.\n"
            "Research software. Not a medical device, not for diagnosis."
        ),
    )
    settings = parse_settings(parser, WorklistSettings, argv)
    try:
        worklist = read_worklist(settings.queue)
    except WorklistError as error:
        parser.error(str(error))
    note_unreadable(worklist)
    say((write_csv if settings.csv else write_json)(worklist).removesuffix("\n"))
    return 0


def note_unreadable(worklist: Worklist) -> None:
    """Says which files are no answers."""
    for name in worklist.unreadable:
        complain(f"gateway worklist: warning: {name} is no answer of a study")
    sys.stderr.flush()
