"""Checks that a log is what was written: no line changed, removed, inserted or moved, and none cut off at the end."""

from __future__ import annotations

import os
from contextlib import ExitStack
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
    opened: list[tuple[str, BinaryIO]] = []
    for candidate in [path, *(rotated.path for rotated in list_rotated(path))]:
        try:
            file = stack.enter_context(open(open_regular(candidate), "rb"))
        except FileNotFoundError:
            continue
        opened.append((candidate.name, file))
    if not opened:
        raise FileNotFoundError(2, "there is no such file", str(path))
    if opened[0][0] == path.name:
        opened.append(opened.pop(0))
    last = os.fstat(opened[-1][1].fileno())
    # One that was opened as the last and then listed as rotated is there twice.
    return [*(one for one in opened[:-1] if not os.path.samestat(last, os.fstat(one[1].fileno()))), opened[-1]]
