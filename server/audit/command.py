"""``python -m server audit``: checks an audit log, finds lines in it, and prints its head to be kept elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.audit.chain import Position
from server.audit.check import Report
from server.audit.family import read_head
from server.audit.search import find_id, find_image
from server.audit.verify import verify
from server.flags import LineParser, check_settings, parse_settings, require, setting
from server.process.console import complain, say

EXIT_FOUND_FAULT = EXIT_FOUND_NOTHING = 1
EXIT_FAILED = 2
FILE_TEXT = "the audit log, as the server's --audit names it; STROKE_AUDIT unless given"
USAGE = """python -m server audit: the log of what was judged

  python -m server audit verify FILE   is it what was written?
  python -m server audit search FILE   what does it say of an image, or under an id?
  python -m server audit head FILE     its last line, to be kept elsewhere

Each has --help."""


@dataclass(frozen=True)
class VerifyConfig:
    """Settings of ``verify``."""

    file: Path | None = setting(None, FILE_TEXT, positional=True)
    head: str = setting("", "SEQ:HASH that 'audit head' printed some time: that line must be there", metavar="SEQ:HASH")
    json: bool = setting(False, "print one JSON object")

    def __post_init__(self) -> None:
        check_settings(self)
        require(
            not self.head or re.fullmatch("[0-9]{1,18}:[0-9a-f]{64}", self.head) is not None,
            "head",
            "must be SEQ:HASH, a number and 64 hexadecimal digits",
        )

    @property
    def anchor(self) -> Position | None:
        """``head`` as a place in the chain."""
        seq, _, digest = self.head.partition(":")
        return Position(int(seq), digest) if self.head else None


@dataclass(frozen=True)
class SearchConfig:
    """Settings of ``search``."""

    file: Path | None = setting(None, FILE_TEXT, positional=True)
    sha256: str = setting("", "SHA-256 of the image file", metavar="HEX")
    image: Path | None = setting(None, "the image file itself", metavar="IMAGE")
    id: str = setting("", "id of the request")

    def __post_init__(self) -> None:
        check_settings(self)
        given = [bool(self.sha256), self.image is not None, bool(self.id)]
        require(sum(given) == 1, "sha256", "or --image or --id must be given, one of them")
        require(
            not self.sha256 or re.fullmatch("[0-9a-fA-F]{64}", self.sha256) is not None,
            "sha256",
            "must be 64 hexadecimal digits",
        )


@dataclass(frozen=True)
class HeadConfig:
    """Settings of ``head``."""

    file: Path | None = setting(None, FILE_TEXT, positional=True)

    def __post_init__(self) -> None:
        check_settings(self)


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Returns:
        0; 1 when a log is not what was written, or nothing was found; 2 when it cannot be read.
    """
    commands = {"verify": run_verify, "search": run_search, "head": run_head}
    arguments = list(argv)
    if arguments[:1] in (["--help"], ["-h"]):
        say(USAGE)
        return 0
    if not arguments or arguments[0] not in commands:
        complain("server audit: error: give verify, search or head (python -m server audit --help)")
        return EXIT_FAILED
    try:
        return commands[arguments[0]](arguments[1:])
    except OSError as error:
        complain(f"server audit: error: {error.filename or 'the log'}: {error.strerror or error}")
        return EXIT_FAILED


def choose_file(parser: LineParser, given: Path | None) -> Path:
    """The log that is meant; ends the process where that is not said."""
    name = given or os.environ.get("STROKE_AUDIT", "")
    if not name:
        parser.error("which audit log? Give FILE, or set STROKE_AUDIT")
    return Path(name)


def run_verify(arguments: Sequence[str]) -> int:
    """Checks a log."""
    parser = LineParser(
        prog="python -m server audit verify",
        description="Reads all files of a log, and says whether any line was changed, removed, inserted or moved.",
        epilog="Exit codes: 0 it is what was written, 1 it is not, 2 it cannot be read.",
    )
    config = parse_settings(parser, VerifyConfig, arguments)
    report = verify(choose_file(parser, config.file), config.anchor)
    say(json.dumps({"ok": report.is_intact, **dataclasses.asdict(report)}) if config.json else render(report))
    return 0 if report.is_intact else EXIT_FOUND_FAULT


def render(report: Report) -> str:
    """The report for people."""
    lines = [
        f"{'OK' if report.is_intact else 'NOT OK'}: lines {report.first_seq} to {report.last_seq} in {report.files} "
        f"file{'s' if report.files > 1 else ''}, {report.images} of images"
    ]
    lines += [f"{fault.file}:{fault.line}: {fault.text}" for fault in report.faults]
    if report.removed_through:
        lines.append(f"Lines 1 to {report.removed_through} were removed after their time, as the log says.")
    if report.recoveries:
        lines.append(f"Servers that did not stop in order: {report.recoveries}; the log went on after them.")
    if report.lost:
        lines.append(f"Images without a line, as the log says: {report.lost} (too many waited, or the disk was full).")
    if report.state == "running":
        lines.append("A server writes it now.")
    elif report.state == "killed":
        lines.append(
            "The last server did not stop in order (killed, power cut): what it noted in its last moment (0.1 s) is "
            f"not there; {report.torn_bytes} bytes are there of a line that it was writing; the last "
            f"{report.unsecured} lines were not secured yet."
        )
    return "\n".join(lines)


def run_search(arguments: Sequence[str]) -> int:
    """Prints lines."""
    parser = LineParser(
        prog="python -m server audit search",
        description="Prints the lines about an image or a request, from all files of a log. It does not verify them.",
        epilog="Exit codes: 0 found, 1 there is none, 2 it cannot be read.",
    )
    config = parse_settings(parser, SearchConfig, arguments)
    path, digest = choose_file(parser, config.file), config.sha256.lower()
    if config.image is not None:
        with config.image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = find_id(path, config.id) if config.id else find_image(path, digest)
    is_found = False
    for line in found:
        is_found = say(line)
    return 0 if is_found else EXIT_FOUND_NOTHING


def run_head(arguments: Sequence[str]) -> int:
    """Prints the last line that is on the disk, as ``verify --head`` takes it, and its time."""
    parser = LineParser(
        prog="python -m server audit head",
        description="Prints SEQ:HASH and time of the last line. Kept where the server's operator cannot change it, it "
        "shows later whether the lines up to there were rewritten: 'audit verify FILE --head SEQ:HASH'.",
    )
    path = choose_file(parser, parse_settings(parser, HeadConfig, arguments).file)
    head = read_head(path)
    if head is None:
        complain(f"server audit: error: {path}: it has no head")
        return EXIT_FAILED
    say(f"{head.position.seq}:{head.position.hash} {head.time}")
    return 0
