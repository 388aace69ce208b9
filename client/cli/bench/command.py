"""``python -m client bench``: load on a server, and how long its answers take."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..arguments import make_parser, read_counts, read_rates, read_seconds
from ..connection import Connection, add_connection_flags, read_connection, run_with_client
from ..selection import list_images
from ..signals import EXIT_INTERRUPTED
from ..table import terminal_width
from ..terminal import Terminal, escape

if TYPE_CHECKING:
    from ..._client import StrokeClient
    from .load import Load, Recorder

_MOST_BYTES = 256 * 1024 * 1024
"""Encoded images that are held; from more files than fit, the first are taken."""

_EPILOG = """\
examples:
  python -m client bench scans/ --clients 1,2,4,8
  python -m client bench scans/ --rate 10,20 --seconds 60 --json > load.json
  python -m client bench scans/ --stream --clients 8

--clients is a closed loop: each sends when it is answered, so a server that
stops for a moment is asked less and looks better than it is. Use it to learn
how many images/s there are. --rate sends by a timetable and counts from when
an image was due: use it to learn how long callers wait.

exit status: 0 all were answered, 1 some were not, 2 wrong usage, 130 Ctrl-C.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "bench", "[OPTION]... IMAGE...", "Loads a server with images and measures how long its answers take.", _EPILOG
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files or folders; read once, sent in turns")
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--clients", type=read_counts, metavar="N,...", help="clients of closed loops (default: 1)")
    load.add_argument("--rate", type=read_rates, metavar="R,...", help="images per second of open loops")
    parser.add_argument("--stream", action="store_true", help="one stream with N images on their way, not N clients")
    parser.add_argument("--arrivals", choices=("poisson", "fixed"), help="timetable of --rate (default: poisson)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which Poisson timetable (default: 0)")
    parser.add_argument("--seconds", type=read_seconds, default=10.0, metavar="S", help="length of each (default: 10)")
    parser.add_argument(
        "--warmup", type=read_seconds, default=1.0, metavar="S", help="before it, uncounted (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--model", default="", metavar="NAME", help="model that judges (default: the server's)")
    parser.add_argument("--model-version", default="", metavar="V", help="its version (default: the server's)")
    add_connection_flags(parser)
    return parser


@dataclass(frozen=True)
class Step:
    """One load of a run."""

    clients: int = 0
    """Clients of a closed loop, or images in flight of a stream; 0 in an open loop."""

    rate: float = 0.0
    """Images per second of an open loop; 0 in the others."""


def main(argv: list[str]) -> int:
    """Runs the sub-command and returns its exit status; ``argv`` are the arguments after ``bench``."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.seconds == 0:
        parser.error("--seconds must be above 0")
    if arguments.rate and arguments.stream:
        parser.error("--stream goes with --clients: on a stream, images wait for those before them")
    if arguments.arrivals and not arguments.rate:
        parser.error("--arrivals goes with --rate")
    connection = read_connection(parser, arguments)

    def load(client: StrokeClient) -> int:
        images = _read_images(arguments.images)
        for image in images[:1]:  # what fails for the first image is said before anything is measured
            client.predict(image, model=arguments.model, version=arguments.model_version)
        return _Bench(arguments, connection, images).run(client)

    return run_with_client(connection, load)


def _read_images(words: list[str]) -> list[bytes]:
    """Returns the bytes of the images that are named.

    Raises:
        ImageReadError: one cannot be read.
    """
    from ..._config import DEFAULT_MAX_IMAGE_BYTES
    from ..._errors import ImageReadError, InvalidImageError
    from ..._exchange import read_image

    images: list[bytes] = []
    held = 0
    listed = list_images(words, recursive=False)
    for entry in listed:
        if entry.image is None:
            raise ImageReadError(f"{entry.name}: {entry.fault}", "IMAGE_UNREADABLE")
        try:
            data = read_image(entry.image, DEFAULT_MAX_IMAGE_BYTES)
        except InvalidImageError as error:
            raise ImageReadError(f"{entry.name}: {error}", error.reason) from None
        if images and held + len(data) > _MOST_BYTES:
            print(f"the first {len(images)} of {len(listed)} images are sent in turns", file=sys.stderr)
            break
        held += len(data)
        images.append(data)
    return images


class _Bench:
    """One run of the command: its loads one after the other."""

    def __init__(self, arguments: argparse.Namespace, connection: Connection, images: list[bytes]) -> None:
        self._arguments = arguments
        self._server = connection.server
        self._timeout = connection.timeout
        self._images = images
        self._terminal = Terminal(sys.stderr)

    def run(self, client: StrokeClient) -> int:
        """Runs the loads, prints what they found and returns the exit status."""
        from .report import format_report, load_to_json

        steps = [Step(rate=rate) for rate in self._arguments.rate or ()]
        steps = steps or [Step(clients=clients) for clients in self._arguments.clients or [1]]
        found: list[tuple[Step, Load]] = []
        interrupted = False
        for step in steps:
            load, interrupted = self._run_step(client, step)
            if load.latencies.count or load.errors or not interrupted:
                found.append((step, load))
            if interrupted:
                break
        settings = self._describe(interrupted=interrupted)
        if self._arguments.json:
            runs = [load_to_json(load, clients=step.clients, rate=step.rate) for step, load in found]
            print(json.dumps({**settings, "runs": runs}))
        else:
            rows = [(step.clients, step.rate, load) for step, load in found]
            print(escape_lines(format_report(settings, rows, terminal_width())))
        if interrupted:
            return EXIT_INTERRUPTED
        return 1 if any(load.errors for _, load in found) else 0

    def _describe(self, *, interrupted: bool) -> dict[str, Any]:
        arguments = self._arguments
        is_open = bool(arguments.rate)
        return {
            "server": self._server,
            "loop": "open" if is_open else "stream" if arguments.stream else "closed",
            "latencies_from": "due" if is_open else "sent",
            "arrivals": (arguments.arrivals or "poisson") if is_open else None,
            "seed": arguments.seed if is_open else None,
            "seconds": arguments.seconds,
            "warmup_seconds": arguments.warmup,
            "images": len(self._images),
            "image_bytes": sum(map(len, self._images)),
            "interrupted": interrupted,
        }

    def _run_step(self, client: StrokeClient, step: Step) -> tuple[Load, bool]:
        """Returns what one load found, and whether Ctrl-C cut it short."""
        from .load import LoadRun, make_timetable

        arguments = self._arguments
        run = LoadRun(
            client,
            self._images,
            model=arguments.model,
            version=arguments.model_version,
            warmup=arguments.warmup,
            seconds=arguments.seconds,
            patience=self._timeout,
        )
        interrupted = False
        try:
            if step.rate:
                kind = arguments.arrivals or "poisson"
                # Two timetables, so that what is counted has exactly the rate.
                before = make_timetable(step.rate, arguments.warmup, kind, arguments.seed)
                counted = make_timetable(step.rate, arguments.seconds, kind, arguments.seed)
                run.start_open([*before, *(arguments.warmup + due for due in counted)])
            elif arguments.stream:
                run.start_stream(step.clients)
            else:
                run.start_closed(step.clients)
            while not run.wait(0.2):
                self._draw(step, run.recorder)
        except KeyboardInterrupt:
            interrupted = True
        run.stop()
        if interrupted:
            client.close()  # ends what is on its way
            run.wait(5)
        self._erase()
        return run.recorder.load, interrupted

    def _draw(self, step: Step, recorder: Recorder) -> None:
        if self._terminal.is_capable and self._terminal.stream is not None:
            what = f"{step.rate:g}/s" if step.rate else f"{step.clients}"
            left = recorder.end - time.monotonic()
            line = f"{what}: {recorder.load.latencies.count} answered, {recorder.load.errors.total()} failed; "
            line += f"{left:.0f} s left" if left > 0 else "waiting for the last answers"
            self._terminal.stream.write(f"\r\x1b[K{line[: self._terminal.columns - 1]}")
            self._terminal.stream.flush()

    def _erase(self) -> None:
        if self._terminal.is_capable and self._terminal.stream is not None:
            self._terminal.stream.write("\r\x1b[K")
            self._terminal.stream.flush()


def escape_lines(text: str) -> str:
    """Returns ``text`` without control characters but for its line ends."""
    return "\n".join(map(escape, text.split("\n")))
