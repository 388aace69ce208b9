"""``python -m gateway fetch``: has the gateway of a queue fetch a study from its archive, and waits for it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.fetch.orders import (
    Order,
    Progress,
    find_order,
    find_state,
    read_progress,
    read_wish,
    write_order,
)
from server.flags import REQUIRED, LineParser, check_settings, parse_settings, setting
from server.process.console import complain, say

POLL_SECONDS = 0.2
TAKE_SECONDS = 10.0
"""For the gateway to begin."""

FOLDER = "fetching"


@dataclass(frozen=True)
class FetchSettings:
    """What is wanted, and of whom."""

    study: str = setting(
        REQUIRED, "StudyInstanceUID, or accession number", metavar="STUDY_UID|ACCESSION", positional=True
    )
    queue: Path = setting(REQUIRED, "folder of the queue of the gateway that is to fetch it", metavar="QUEUE")
    wait: float = setting(
        600.0,
        "how long to wait for the end; then it goes on without being watched",
        least=0,
        most=86_400,
        metavar="SECONDS",
    )
    json: bool = setting(False, "print the end as JSON")

    def __post_init__(self) -> None:
        check_settings(self)
        try:
            read_wish(self.study)
        except ValueError as error:
            raise ValueError(f"STUDY_UID|ACCESSION {error}") from None


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns 0 when all has come, 1 when it has not; 2 when there is no queue."""
    parser = LineParser(
        prog="python -m gateway fetch",
        description="Has the gateway of a queue fetch the CT series of a study from its archive (listen --fetch-from).",
        epilog=(
            "examples:\n"
            "  python -m gateway fetch 1.2.840.113619.2.55.3.604688 --queue queue\n"
            "  python -m gateway fetch A4711 --queue queue --json\n"
            "  python -m gateway fetch A4711 --queue queue --wait 0\n\n"
            "The gateway judges what it fetches as if it had been sent. Ctrl-C cancels; the same command again\n"
            "watches one that was left.\n"
            "Exit codes: 0 done, or left alone by --wait 0; 1 failed (one line says why), 2 usage.\n"
            "Research software. Not a medical device, not for diagnosis."
        ),
    )
    settings = parse_settings(parser, FetchSettings, argv)
    folder = settings.queue / FOLDER
    if not folder.is_dir():
        parser.error(f"{settings.queue}: there is no queue of the gateway here: no folder {FOLDER} in it")
    order = read_wish(settings.study)
    path = find_order(folder, order)
    begin(path, order)
    if not settings.wait:
        return 0
    try:
        progress = follow(path, settings.wait)
    except KeyboardInterrupt:
        path.unlink(missing_ok=True)  # which cancels it
        raise
    if progress is None:
        return 1
    for done in (path, find_state(path)):
        done.unlink(missing_ok=True)
    return tell(progress, is_json=settings.json)


def begin(path: Path, order: Order) -> None:
    """Orders, where it is not under way.

    Raises:
        OSError: the queue cannot be written to.
    """
    progress = read_progress(path)
    if not path.exists() or (progress is not None and progress.is_over):
        find_state(path).unlink(missing_ok=True)
        write_order(path, order)


def follow(path: Path, seconds: float) -> Progress | None:
    """Shows how far it is until it has ended; None: it has not, as a line has said."""
    shown, began = "", time.monotonic()
    while True:
        progress = read_progress(path)
        if progress is not None and progress.is_over:
            return progress
        waited = time.monotonic() - began
        if progress is None and waited > TAKE_SECONDS:
            path.unlink(missing_ok=True)
            complain(
                "gateway fetch: error: nobody takes orders from this queue: python -m gateway listen has to run on it"
            )
            return None
        if waited > seconds:
            complain(f"gateway fetch: error: it has not ended in {seconds:g} s, and goes on: ask again to watch it")
            return None
        if progress is not None and (now := describe(progress)) != shown:
            complain(f"gateway fetch: {now}")
            shown = now
        time.sleep(POLL_SECONDS)


def describe(progress: Progress) -> str:
    """How far it is, in words."""
    if not progress.announced and not progress.completed:
        return "the archive is asked"
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.completed} of {progress.announced or 'an unknown number of'} images{failed}"


def tell(progress: Progress, *, is_json: bool) -> int:
    """Prints the end; returns the exit code."""
    if is_json:
        say(json.dumps(asdict(progress), indent=1))
    elif progress.reason:
        complain(f"gateway fetch: error: {progress.message} [{progress.reason}]")
    else:
        studies = "a study" if progress.studies == 1 else f"{progress.studies} studies"
        say(f"{progress.completed} images of {studies} have come; the results go where all go")
    return 1 if progress.reason else 0
