"""The command line: ``python -m client scan.png``. Nothing of gRPC is imported before the arguments are understood."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import import_module

from client._connection import Connection, add_connection_flags, read_connection
from client._listing import list_images

EXIT_ANSWERED = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended; argparse itself exits with 2 on wrong usage."""

SUBCOMMANDS = {
    "health": "client._health_command",
    "models": "client._models_command",
    "bench": "client._bench_command",
    "completion": "client._completion",
}
"""First arguments that are no images, and the modules whose ``main`` gets what follows. A file of such a name is
``./health``."""

_EPILOG = """\
examples:
  python -m client scan.png
  python -m client --recursive --json scans/ > results.jsonl
  python -m client --server box.local:50051 - < scan.png

exit status: 0 all images were answered, 1 some were not, 2 wrong usage.
Research software: not a medical device, not for diagnosis.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description="Classifies brain-CT slices with a StrokeServe server, one line per image.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="PNG or JPEG file, folder of them, or - for stdin")
    parser.add_argument("--watch", metavar="DIR", help="classify what arrives in this folder, until Ctrl-C")
    parser.add_argument("--move", action="store_true", help="with --watch: move files to done/ and failed/ in it")
    parser.add_argument("--beside", action="store_true", help="with --watch: write FILE.json beside each image")
    parser.add_argument(
        "--settle", type=float, default=0.5, metavar="S", help="with --watch: seconds that a file must not have changed"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--csv", metavar="FILE", help="write results as a table (- for stdout)")
    where.add_argument("--output", metavar="FILE", help="write results as JSON Lines")
    add_connection_flags(parser)
    parser.add_argument("--model", default="", metavar="NAME", help="model that judges (default: the server's)")
    parser.add_argument("--model-version", default="", metavar="V", help="its version (default: the server's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line instead of text")
    parser.add_argument("--recursive", action="store_true", help="also take what lies below the folders")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0, 1 or 130; wrong usage exits with 2.

    Args:
        argv: arguments without the program's name; None: those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        # File names need not fit the terminal's encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    try:
        if words and words[0] in SUBCOMMANDS:
            command: Callable[[list[str]], int] = import_module(SUBCOMMANDS[words[0]]).main
            return command(words[1:])
        return _classify(words)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # a reader such as `head` that has seen enough is no fault
            print(f"error: the results cannot be written: {error.strerror}", file=sys.stderr)
        # Python writes what is still buffered when it exits, and would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _classify(words: list[str]) -> int:
    """Judges images, or what arrives in a folder, as ``words`` say; returns the exit status."""
    parser = build_parser()
    arguments = parser.parse_args(words)
    connection = read_connection(parser, arguments)
    if arguments.watch is not None:
        from client._watch import watch

        return watch(arguments, connection)
    return run(arguments, connection)


def run(arguments: argparse.Namespace, connection: Connection) -> int:
    """Sends the images, prints what comes back and returns the exit status."""
    # What gRPC's core has to say goes to stderr, where a script expects one line per failed image.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from client._errors import ImageReadError, StrokeClientError
    from client._report import Report, escape
    from client._types import Prediction

    listed = list_images(arguments.images, recursive=arguments.recursive)
    report = Report(len(listed), as_json=arguments.json)
    fault = None
    try:
        with (
            connection.open_client() as client,
            closing(
                client.predict_many(
                    (entry.image for entry in listed if entry.image is not None),
                    model=arguments.model,
                    version=arguments.model_version,
                )
            ) as results,
        ):
            for entry in listed:
                if entry.image is None:
                    report.add_failure(entry.name, ImageReadError(entry.fault, "IMAGE_UNREADABLE"))
                    continue
                result = next(results)
                if isinstance(result, Prediction):
                    report.add_prediction(entry.name, result)
                else:
                    report.add_failure(entry.name, result.error)
            next(results, None)  # so that the stream ends in order rather than by a cancellation
    except StrokeClientError as error:  # the run cannot go on; one line, however many images are left
        fault = error
    finally:
        report.close()
    if fault is not None:
        print(escape(f"error: {fault}"), file=sys.stderr)
    return EXIT_FAILED if fault is not None or report.failed else EXIT_ANSWERED
