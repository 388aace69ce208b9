"""``python -m client bench``: load on a server, and how long its answers take."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...files.folder import LeftOut
from ..connection import Connection, add_connection_flags, make_parser, read_connection, read_seconds, run_with_client
from ..selection import list_images
from ..signals import EXIT_INTERRUPTED
from ..terminal import StatusLine, Terminal, escape

if TYPE_CHECKING:
    from ..._client import StrokeClient
    from ..._types import Prediction
    from .load import Load, LoadRun, Times

MOST_RATE = 10_000.0
"""Images per second that may be asked for: more than one process of Python can send."""

_MOST_BYTES = 256 * 1024 * 1024
"""Encoded images that are held; from more files than fit, the first are taken."""

_EPILOG = """\
examples:
  {program} bench scans/ --clients 1,2,4,8
  {program} bench scans/ --rate 10,20 --seconds 60 --json > load.json
  {program} bench scans/ --stream --clients 8

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

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.rate:g}/s" if self.rate else str(self.clients)


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
        left_out = LeftOut()
        images = _read_images(arguments.images, left_out)
        if others := left_out.describe():
            print(escape(f"note: {others}"), file=sys.stderr)
        for image in images[:1]:  # what fails for the first image is said before anything is measured
            client.predict(image, model=arguments.model, version=arguments.model_version)
        return _Bench(arguments, connection, images, others).run(client)

    return run_with_client(connection, load)


def _read_images(words: list[str], left_out: LeftOut) -> list[bytes]:
    """Returns the bytes of the images that are named; ``left_out`` takes what folders hold beside them.

    Raises:
        ImageReadError: one cannot be read.
    """
    from ..._config import DEFAULT_MAX_IMAGE_BYTES
    from ..._errors import ImageReadError, InvalidImageError
    from ..._exchange import read_image

    images: list[bytes] = []
    held = 0
    listed = list_images(words, recursive=False, left_out=left_out)
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

    def __init__(
        self, arguments: argparse.Namespace, connection: Connection, images: list[bytes], left_out: str
    ) -> None:
        self._arguments = arguments
        self._server = connection.server
        self._timeout = connection.timeout
        self._images = images
        self._left_out = left_out
        self._line = StatusLine(Terminal(sys.stderr))

    def run(self, client: StrokeClient) -> int:
        """Runs the loads, prints what they found and returns the exit status."""
        from .load import describe_load

        steps = [Step(rate=rate) for rate in self._arguments.rate or ()]
        steps = steps or [Step(clients=clients) for clients in self._arguments.clients or [1]]
        found: list[tuple[Step, Load]] = []
        interrupted = False
        for step in steps:
            load, interrupted = self._run_step(client, step)
            if load.offered or not interrupted:
                found.append((step, load))
            if interrupted:
                break
        settings = self._describe(interrupted=interrupted)
        if self._arguments.json:
            runs = [
                ({"rate": step.rate} if step.rate else {"clients": step.clients})
                | describe_load(load, is_open=bool(step.rate))
                for step, load in found
            ]
            print(json.dumps({**settings, "runs": runs}))
        else:
            print_report(settings, found, Terminal(sys.stdout))
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
            "left_out": self._left_out,
            "interrupted": interrupted,
        }

    def _run_step(self, client: StrokeClient, step: Step) -> tuple[Load, bool]:
        """Returns what one load found, and whether Ctrl-C cut it short."""
        from .load import LoadRun, make_timetable

        arguments = self._arguments
        patience = self._timeout
        with LoadRun(self._images, warmup=arguments.warmup, seconds=arguments.seconds, patience=patience) as run:
            interrupted = False
            try:
                if step.rate:
                    timetable = make_timetable(
                        step.rate,
                        arguments.seconds,
                        warmup=arguments.warmup,
                        arrivals=arguments.arrivals or "poisson",
                        seed=arguments.seed,
                    )
                    run.start_open(lambda: nullcontext(self._make_send(client)), timetable)
                elif arguments.stream:
                    run.start_stream(self._make_stream(client, step.clients))
                else:
                    run.start_closed(lambda: nullcontext(self._make_send(client)), step.clients)
                while not run.wait(0.2):
                    self._draw(step, run)
            except KeyboardInterrupt:
                interrupted = True
            run.stop()
            if interrupted:
                client.close()  # ends what is on its way
                run.wait(5)
            self._line.erase()
            return run.load, interrupted

    def _make_send(self, client: StrokeClient) -> Callable[[bytes], Times]:
        arguments = self._arguments
        return lambda image: read_times(client.predict(image, model=arguments.model, version=arguments.model_version))

    def _make_stream(
        self, client: StrokeClient, in_flight: int
    ) -> Callable[[Iterable[bytes]], Iterator[Times | Exception]]:
        from ..._types import Prediction

        arguments = self._arguments

        def stream(images: Iterable[bytes]) -> Iterator[Times | Exception]:
            for result in client.predict_many(
                images, model=arguments.model, version=arguments.model_version, in_flight=in_flight
            ):
                yield read_times(result) if isinstance(result, Prediction) else result.error

        return stream

    def _draw(self, step: Step, run: LoadRun) -> None:
        left = run.seconds_left
        text = f"{step.name}: {run.load.latencies.count} answered, {run.load.errors.total()} failed; "
        text += f"{left:.0f} s left" if left > 0 else "waiting for the last answers"
        self._line.draw(lambda: text)


def print_report(settings: dict[str, Any], rows: Sequence[tuple[Step, Load]], terminal: Terminal) -> None:
    """Prints the table with what has to be known to read it.

    Args:
        settings: ``server``, ``loop``, ``seconds`` and so on, as in the JSON object.
        rows: what was asked for and found in each run.
        terminal: where it is printed.
    """
    from .load import PERCENTILES

    is_open = settings["loop"] == "open"
    heads = ["rate/s" if is_open else "in flight" if settings["loop"] == "stream" else "clients"]
    heads += ["images/s", "p50 ms", "p90 ms", "p99 ms", "p99.9", "max ms", "failed"]
    cells = []
    for step, load in rows:
        times = [*load.latencies.find_percentiles(PERCENTILES), load.latencies.maximum]
        first = f"{step.rate:g}" if is_open else str(step.clients)
        cells.append([first, f"{load.rate:.1f}", *(_cell(time, load) for time in times), str(load.errors.total())])
    below = [_detail(step.name, load) for step, load in rows]
    below += [f"warning: {text}" for text in _list_warnings(rows)]
    if settings["interrupted"]:
        below.append("interrupted: the figures are of what was measured so far")
    _print_folded(_introduce(settings), terminal)
    terminal.print()
    terminal.print_table(heads, cells, right=heads)
    terminal.print()
    for text in below:
        _print_folded(text, terminal)


def _print_folded(text: str, terminal: Terminal) -> None:
    for line in textwrap.wrap(escape(text), terminal.columns - 1, break_on_hyphens=False):
        terminal.print(line)


def _introduce(settings: dict[str, Any]) -> str:
    megabytes = settings["image_bytes"] / 1e6
    text = f"{settings['server']}: {settings['images']} images ({megabytes:.3g} MB) in turns, "
    text += f"{settings['seconds']:g} s after {settings['warmup_seconds']:g} s of warm-up. "
    if settings["loop"] == "open":
        seed = f" with seed {settings['seed']}" if settings["arrivals"] == "poisson" else ""
        return text + f"Open loop, {settings['arrivals']} arrivals{seed}: latencies count from when an image was due."
    if settings["loop"] == "stream":
        return text + "One stream, closed loop: latencies count from sending and contain the wait for earlier images."
    return text + (
        "Closed loop: latencies count from sending, so a stop of the server counts once for each client; "
        "for what callers see, use --rate."
    )


def _detail(name: str, load: Load) -> str:
    """Returns what is not in the table: the server's times, bytes, errors by reason."""
    text = f"{name}: "
    if load.latencies.count:
        means = ", ".join(f"{part} {total / load.latencies.count:.3g}" for part, total in load.server_ms.items())
        text += f"{load.latencies.count} answered, {load.completed_bytes / max(load.seconds, 1e-9) / 1e6:.3g} MB/s; "
        text += f"server's mean ms: {means}"
    else:
        text += "nothing was answered"
    if load.errors:
        text += "; failed: " + ", ".join(f"{reason} {number}" for reason, number in load.errors.most_common())
    return text


def _list_warnings(rows: Sequence[tuple[Step, Load]]) -> list[str]:
    from .load import LATE_SECONDS, MOST_SENDERS

    warnings = []
    for step, load in rows:
        own = load.late - load.crowded
        if own > max(0.02 * load.offered, 2):
            warnings.append(
                f"at {step.name} this machine did not keep the timetable: {own} images left more than "
                f"{1000 * LATE_SECONDS:g} ms late (at most {1000 * load.latest:.3g} ms). Part of their latencies, "
                "which count from when they were due, is this machine's: load from another one, or at a lower rate."
            )
        if load.crowded:
            warnings.append(
                f"at {step.name} {load.crowded} images left late because {MOST_SENDERS} others had no answer yet: the "
                "rate is more than the server can do, and the latencies grow with the length of the run."
            )
    return warnings


def _cell(seconds: float, load: Load) -> str:
    if not load.latencies.count:
        return "-"
    milliseconds = 1000 * seconds
    return f"{milliseconds:#.3g}" if milliseconds < 99.95 else f"{milliseconds:.0f}"


def read_times(prediction: Prediction) -> Times:
    """Returns the server's own times, in milliseconds."""
    timings = prediction.timings
    return {"decode": timings.decode_ms, "queue": timings.queue_ms, "inference": timings.inference_ms}


def read_counts(text: str) -> list[int]:
    """Returns numbers of at least 1 that commas part, for argparse."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1, or several with commas")
    return counts


def read_rates(text: str) -> list[float]:
    """Returns numbers above 0, and of ``MOST_RATE`` at most, that commas part, for argparse."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = [0.0]
    if not all(0 < rate <= MOST_RATE for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in (0, {MOST_RATE:.0f}], or several with commas")
    return rates
