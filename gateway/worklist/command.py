"""``python -m gateway worklist``: prints the worklist of a queue, or shows it on a page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.worklist.order import Worklist, WorklistError, read_worklist, write_csv, write_json
from gateway.worklist.page import find_address, serve_page
from server.flags import REQUIRED, LineParser, check_settings, parse_settings, require, setting
from server.process.console import complain, say


@dataclass(frozen=True)
class WorklistSettings:
    """Which queue, and how it is shown."""

    queue: Path = setting(REQUIRED, "folder of the queue that listen writes", metavar="QUEUE", positional=True)
    csv: bool = setting(False, "print it as CSV")
    json: bool = setting(False, "print it as JSON, with all that is kept of each answer")
    http: str = setting(
        "",
        "show it on a page at this address of this machine, such as 127.0.0.1:8090 (port 0: any), until interrupted; "
        "to be seen from elsewhere it needs a proxy that knows who may see it",
        metavar="HOST:PORT",
    )
    refresh: int = setting(15, "seconds after which the page looks again", least=1, most=3600)

    def __post_init__(self) -> None:
        check_settings(self)
        require(self.csv + self.json + bool(self.http) == 1, "csv", "or --json or --http must be given, one of them")
        if self.http:
            find_address(self.http)


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns 0 when it is done; 2 when there is no queue."""
    parser = LineParser(
        prog="python -m gateway worklist",
        description="Shows which study to look at first: positive, then not analysed, then the rest.",
        epilog=(
            "examples:\n"
            "  python -m gateway worklist /var/lib/stroke/queue --csv\n"
            "  python -m gateway worklist /var/lib/stroke/queue --http 127.0.0.1:8090\n\n"
            "Exit codes: 0 done, 1 failed (one line says why), 2 usage.\n"
            "Research software. Not a medical device, not for diagnosis."
        ),
    )
    settings = parse_settings(parser, WorklistSettings, argv)
    try:
        worklist = read_worklist(settings.queue)
    except WorklistError as error:
        parser.error(str(error))
    if settings.http:
        return serve_page(settings.queue, settings.http, settings.refresh)
    note_unreadable(worklist)
    say((write_csv if settings.csv else write_json)(worklist).removesuffix("\n"))
    return 0


def note_unreadable(worklist: Worklist) -> None:
    """Says which files are no answers."""
    for name in worklist.unreadable:
        complain(f"gateway worklist: warning: {name} is no answer of a study")
    sys.stderr.flush()
