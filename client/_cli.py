"""The command line: ``python -m client scan.png``. Nothing of gRPC is imported before the arguments are understood."""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import closing

from client._connection import Connection, add_connection_flags, read_connection
from client._listing import list_images

EXIT_ANSWERED = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended; argparse itself exits with 2 on wrong usage."""

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
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="PNG or JPEG file, folder of them, or - for stdin")
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
    parser = build_parser()
    arguments = parser.parse_args(argv)
    connection = read_connection(parser, arguments)
    try:
        return run(arguments, connection)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # a reader such as `head` that has seen enough is no fault
            print(f"error: the results cannot be written: {error.strerror}", file=sys.stderr)
        # Python writes what is still buffered when it exits, and would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


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
