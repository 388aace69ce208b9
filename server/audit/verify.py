"""Checks that a log is what was written: no line changed, removed, inserted or moved, and none cut off at the end."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from server.audit.chain import Position
from server.audit.check import Check, Report
from server.audit.family import is_written_now, list_rotated, read_head
from server.machine.bounded_file import open_regular


def verify(path: Path, anchor: Position | None = None) -> Report:
    """Reads all files of a log from the first line to the last.

    Args:
        path: the log: the file that is written.
        anchor: a line as it was told by ``head`` some time, and kept elsewhere.

    Raises:
        OSError: it cannot be read.
    """
    head = read_head(path)  # before the lines, which may become more meanwhile
    secured = {"the head": head.position} if head else {}
    check = Check(secured | {"--head": anchor} if anchor else secured)
    with ExitStack() as stack:
        for name, file in open_files(path, stack):
            check.read_file(name, file)
    check.finish()
    report = check.report
    if head is None:
        check.fault("its head is missing, or is none: lines may have been cut off here")
    else:
        report.unsecured = max(0, report.last_seq - head.position.seq)
    if check.last_event != "stop" or report.torn_bytes:
        report.state = "running" if is_written_now(path) else "killed"
    return report


def open_files(path: Path, stack: ExitStack) -> list[tuple[str, BinaryIO]]:
    """Opens the files of a log in the order of their lines, all at once: a server may rotate meanwhile.

    Raises:
        OSError: one cannot be opened, and was not removed either.
    """
    current = open_present([path], stack)  # before the others are listed, of which it may become one
    rotated = open_present([rotated.path for rotated in list_rotated(path)], stack)
    if not current and not rotated:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if current and rotated and os.path.samestat(*(os.fstat(files[-1][1].fileno()) for files in (current, rotated))):
        rotated.pop()
    return rotated + current


def open_present(paths: Iterable[Path], stack: ExitStack) -> list[tuple[str, BinaryIO]]:
    """Opens files, those left out that are not there any more. Returns them with their names."""
    opened: list[tuple[str, BinaryIO]] = []
    for path in paths:
        with suppress(FileNotFoundError):
            opened.append((path.name, stack.enter_context(os.fdopen(open_regular(path), "rb"))))
    return opened
