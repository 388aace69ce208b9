"""What a watch says: judgements on standard output, all else on standard error, each line with its time."""

from __future__ import annotations

import json
import os
import sys
import time

from ..._types import Prediction
from ..report import DescribeModel, TableWriter
from ..results import Fields, Record
from ..terminal import FAILED, FAINT, WARNING, Terminal, escape

_STYLES = {"error": FAILED, "warning": WARNING}


class WatchLog:
    """Prints what happens to the files of a folder: on a terminal in the columns and colours of other runs.

    Args:
        folder: the folder as the user calls it.
        describe_model: tells which labels are the positive ones.
        as_json: print records instead of text.
        as_text: print judgements as text.
        is_quiet: leave out notes.
    """

    def __init__(
        self, folder: str, describe_model: DescribeModel, *, as_json: bool, as_text: bool, is_quiet: bool
    ) -> None:
        self._folder = folder
        self._as_json = as_json
        self._as_text = as_text
        self._is_quiet = is_quiet
        self._output = _TimedTerminal(sys.stdout, is_quiet=is_quiet)
        self._notes = _TimedTerminal(sys.stderr, is_quiet=is_quiet)
        self._table: _WatchTable | None = None
        if as_text and self._output.console is not None:
            self._table = _WatchTable(self._output, (), describe_model)

    def show_record(self, fields: Fields) -> None:
        """Prints a record where records are asked for."""
        if self._as_json:
            print(json.dumps(fields), flush=True)

    def show_prediction(self, record: Record, prediction: Prediction) -> None:
        """Prints a judgement where text is asked for, and the warnings that came with it."""
        if self._table is not None:
            self._table.write(record)
        elif self._as_text:
            self._output.print(escape(f"{record.file}: {prediction}"))
        reasons = {reason.reason for reason in prediction.reasons}
        for warning in prediction.warnings:
            if warning.reason in reasons:  # said already
                continue
            self.note(os.path.basename(record.file), f"warning: {warning.message}")

    def note(self, name: str, text: str) -> None:
        """Says what --quiet leaves out."""
        if not self._is_quiet:
            self.say(name, text)

    def say(self, name: str, text: str) -> None:
        """Prints a line about a file, or about the watch as a whole (no name), on standard error. What follows
        ``error:`` or ``warning:`` is one."""
        path = escape(os.path.join(self._folder, name)) + ": " if name else ""
        kind, colon, rest = text.partition(":")
        if kind in _STYLES:
            self._notes.print(path, (kind, _STYLES[kind]), escape(colon + rest))
        else:
            self._notes.print(path, escape(text))


class _TimedTerminal(Terminal):
    """Lines begin with the time."""

    @property
    def columns(self) -> int:
        return max(super().columns - len(_now() + "  "), 1)

    def print(self, *parts: str | tuple[str, str], is_folded: bool = False) -> None:
        super().print((_now(), FAINT), "  ", *parts, is_folded=is_folded)


class _WatchTable(TableWriter):
    """The column of names becomes as wide as the longest one so far: nobody knows those to come."""

    def write(self, record: Record) -> None:
        from rich.cells import cell_len

        self._longest_name = max(self._longest_name, cell_len(escape(record.file)))
        super().write(record)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def format_duration(seconds: float) -> str:
    """Returns ``8 s``, ``4 min`` (rounded up) or ``2 h 05 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = int(-(-seconds // 60))
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
