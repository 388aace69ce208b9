"""The command line: ``python -m client scan.png``. Nothing of gRPC is imported before the arguments are understood."""

from __future__ import annotations

import argparse
import errno
import glob
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from .._config import DEFAULT_IN_FLIGHT
from .connection import (
    Connection,
    PrintVersion,
    add_connection_flags,
    find_similar,
    make_parser,
    name_program,
    read_connection,
    read_seconds,
    run_with_client,
)
from .signals import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from .._client import StrokeClient

EXIT_FAILED = 1
EXIT_USAGE = 2
"""argparse's own."""

SUBCOMMANDS = {"health": ".health", "models": ".models", "bench": ".bench.command", "completion": ".completion"}
"""First words that are no flags and no images either, and the modules of this package whose ``main`` gets all others. A
file of such a name is ``./health``."""

DEFAULT_SETTLE = 0.5
"""Seconds for which a file under watch must not have changed before it is read."""

_EPILOG = """\
examples:
  {program} scan.png
  {program} study/ --slices
  {program} --recursive scans/ --output results.jsonl --resume
  {program} --server box.local:50051 --json - < scan.png
a folder of DICOM files is one study and gets one answer, unless with --each
other commands (each with --help): health, models, bench, completion bash|zsh
exit status: 0 all images answered, 1 some not, 2 wrong usage, 130 interrupted
Research software: not a medical device, not for diagnosis.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "", "[OPTION]... IMAGE...", "Classifies brain-CT slices with a StrokeServe server.", _EPILOG, add_help=False
    )
    images = parser.add_argument_group("images")
    images.add_argument("images", nargs="*", metavar="IMAGE", help="file, folder, 'pattern*', or - for standard input")
    images.add_argument("--recursive", action="store_true", help="also take what lies below the folders")
    images.add_argument(
        "--frame", type=_read_count, default=0, metavar="N", help="which frame of multi-frame DICOM files (from 1)"
    )
    images.add_argument("--study", action="store_true", help="one answer for a folder, of PNG or JPEG slices, too")
    images.add_argument("--each", action="store_true", help="an answer for each file, of DICOM folders, too")
    images.add_argument("--slices", action="store_true", help="with a study: print the table of its slices")
    images.add_argument("--watch", metavar="DIR", help="classify what arrives in this folder, until Ctrl-C")
    images.add_argument("--move", action="store_true", help="with --watch: move files to its done/ and failed/")
    images.add_argument("--beside", action="store_true", help="with --watch: write FILE.json beside each image")
    images.add_argument(
        "--settle",
        type=read_seconds,
        default=DEFAULT_SETTLE,
        metavar="S",
        help="with --watch: seconds that a file must rest (%(default)s)",
    )
    results = parser.add_argument_group("results (as text, unless one of the first three is given)")
    where = results.add_mutually_exclusive_group()
    where.add_argument("--json", action="store_true", help="print one JSON object a line")
    where.add_argument("--csv", metavar="FILE", help="write a table to FILE, - for standard output")
    where.add_argument("--output", metavar="FILE", help="write one JSON object a line to FILE")
    results.add_argument(
        "--excel",
        choices=("comma", "semicolon"),
        metavar="SEP",
        help="with --csv: for Excel, parted by comma or semicolon",
    )
    results.add_argument("--heatmap", metavar="FILE", help="write the heatmap of one image, a PNG (research)")
    results.add_argument("--resume", action="store_true", help="go on with FILE where the last run stopped")
    results.add_argument("--retry-failed", action="store_true", help="with --resume: judge failed images again")
    results.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    results.add_argument("--strict", action="store_true", help="exit with 1, too, when folders hold other images")
    results.add_argument("--quiet", action="store_true", help="no progress, warnings or summary")
    results.add_argument("-h", "--help", action="help", help="show this help")
    results.add_argument("--version", action=PrintVersion, help="show the version")
    server = parser.add_argument_group("server (or STROKE_SERVER, STROKE_TOKEN_FILE and so on in the environment)")
    server.add_argument("--model", default="", metavar="NAME", help="model that judges (default: the server's)")
    server.add_argument("--model-version", default="", metavar="V", help="its version (default: the server's)")
    server.add_argument(
        "--in-flight",
        type=_read_count,
        default=DEFAULT_IN_FLIGHT,
        metavar="N",
        help="images on their way at a time (default: %(default)s)",
    )
    add_connection_flags(server)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0, 1, 2 or 130; what argparse finds wrong exits with 2.

    Args:
        argv: arguments without the program's name; None: those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        # File names need not fit the terminal's encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # What gRPC's core has to say goes to stderr, where a script expects one line per failed image.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    words = sys.argv[1:] if argv is None else argv
    try:
        place = find_operand(words)
        if place is not None and words[place] in SUBCOMMANDS:
            command: Callable[[list[str]], int] = import_module(SUBCOMMANDS[words[place]], __package__).main
            return command([*words[:place], *words[place + 1 :]])
        if place is not None:
            check_command(words[place])
        return _classify(words)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("grpc", "google"):
            raise
        print(
            f"error: the package {error.name} is not installed in {sys.executable}: activate the environment that has "
            "it, or pip install --require-hashes -r requirements/client.lock",
            file=sys.stderr,
        )
        return EXIT_FAILED
    except OSError as error:
        is_of_output = isinstance(error, BrokenPipeError) or _is_of_writing(error) or not _takes_output()
        if not isinstance(error, BrokenPipeError):  # a reader such as `head` that has seen enough is no fault
            print(f"error: {_describe_fault(error, is_of_output=is_of_output)}", file=sys.stderr)
        if is_of_output:
            # Python writes what is still buffered when it exits, and would complain once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _is_of_writing(error: OSError) -> bool:
    """True when something was written that is no file: standard output, whose buffer may be empty after a failure."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _takes_output() -> bool:
    """False when standard output cannot be written to, as what it could not take is still waiting."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        return False
    return True


def _describe_fault(error: OSError, *, is_of_output: bool) -> str:
    from .results import ResultWriteError
    from .terminal import escape

    why = error.strerror or str(error) or type(error).__name__
    if is_of_output or isinstance(error, ResultWriteError):
        where = f" to {error.filename}" if error.filename and not is_of_output else ""
        return escape(f"the results cannot be written{where}: {why}")
    return escape(f"{error.filename}: {why}" if error.filename else why)


def find_operand(words: Sequence[str]) -> int | None:
    """Returns where the first word stands that is neither an option nor its value; None where there is none."""
    options: dict[str, argparse.Action] = {}
    is_value = False
    for place, word in enumerate(words):
        if is_value:
            is_value = False
        elif not word.startswith("-") or word == "-":
            return place
        elif word == "--":
            return None
        elif "=" not in word:
            options = options or dict(build_parser()._option_string_actions)
            if word not in options:  # of a command that follows
                for module in SUBCOMMANDS.values():
                    options |= import_module(module, __package__).build_parser()._option_string_actions
            is_value = word in options and options[word].nargs != 0
    return None


def check_command(word: str) -> None:
    """Ends the process with status 2 when a word that is no file looks like a mistyped command."""
    if os.path.lexists(word) or not word.isalpha():
        return
    meant = "--" + word.lower() if word.lower() in ("help", "version") else find_similar(word, SUBCOMMANDS)
    if meant:
        build_parser().error(f"there is no file {word}: did you mean {name_program()} {meant}?")


def _classify(words: list[str]) -> int:
    """Judges images, or what arrives in a folder, as ``words`` say; returns the exit status."""
    parser = build_parser()
    arguments = parser.parse_intermixed_args(words)  # images may stand behind flags, too
    check_arguments(parser, arguments)
    connection = read_connection(parser, arguments)
    if arguments.watch is not None:
        from .watch.folder import watch

        return watch(arguments, connection)
    if arguments.study or (not arguments.each and any(map(may_be_folder, arguments.images))):
        from .study.command import list_studies, run_studies

        if studies := list_studies(parser, arguments):
            return run_studies(studies, arguments, connection)
    if arguments.slices:
        parser.error("--slices goes with a study: a folder of DICOM files, or --study")
    return run(arguments, connection)


def may_be_folder(word: str) -> bool:
    """Whether a word on the command line is a folder, or a pattern that may match some."""
    return os.path.isdir(word) or glob.has_magic(word)


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the process with status 2 when the arguments do not go together."""
    has_file = bool(arguments.output or (arguments.csv and arguments.csv != "-"))
    if arguments.watch is None:
        if not arguments.images:
            parser.error("name an image, a folder of them, or - for standard input")
        if arguments.move or arguments.beside:
            parser.error("--move and --beside go with --watch")
    elif arguments.study or arguments.slices:
        parser.error("--watch judges each file as it arrives: it goes without --study and --slices")
    elif arguments.images or arguments.recursive or arguments.resume or arguments.fail_fast or arguments.strict:
        parser.error("--watch goes without images, --recursive, --resume, --fail-fast and --strict")
    if arguments.heatmap is not None and (arguments.watch is not None or len(arguments.images) > 1):
        parser.error("--heatmap goes with one image")
    if arguments.each and (arguments.study or arguments.slices):
        parser.error("--each is an answer for each file: it goes without --study and --slices")
    if arguments.resume and not has_file:
        parser.error("--resume needs the file to go on with: --output FILE or --csv FILE")
    if arguments.resume and "-" in arguments.images:
        parser.error("--resume does not go with standard input, which may be another image each time")
    if arguments.excel and not arguments.csv:
        parser.error("--excel goes with --csv")
    if arguments.retry_failed and not arguments.resume:
        parser.error("--retry-failed goes with --resume")
    for word in arguments.images:
        if word in SUBCOMMANDS and not os.path.exists(word):
            parser.error(f"a command comes first, its options after it: {name_program()} {word} ...")


def run(arguments: argparse.Namespace, connection: Connection) -> int:
    """Judges the images and returns the exit status."""
    from .classify import Batch
    from .results import ResultFileError
    from .terminal import escape

    def judge(client: StrokeClient) -> int:
        if arguments.quiet:
            client.note_wait = None
        return Batch(arguments, client).run()

    try:
        return run_with_client(connection, judge)
    except ResultFileError as error:
        print(escape(f"error: {error}"), file=sys.stderr)
        return EXIT_USAGE


def _read_count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return count
