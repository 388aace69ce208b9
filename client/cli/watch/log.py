"""What a watch says: judgements on standard output, all else on standard error, each line with its time."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TextIO

from ..._types import Prediction
from ..results import Fields
from ..terminal import escape


class WatchLog:
    """Prints what happens to the files of a folder.

    Args:
        folder: the folder as the user calls it.
        as_json: print records instead of text.
        as_text: print judgements as text.
        is_quiet: leave out notes.
    """

    def __init__(self, folder: str, *, as_json: bool, as_text: bool, is_quiet: bool) -> None:
        self._folder = folder
        self._as_json = as_json
        self._as_text = as_text
        self._is_quiet = is_quiet

    def show_record(self, fields: Fields) -> None:
        """Prints a record where records are asked for."""
        if self._as_json:
            self._print(json.dumps(fields), sys.stdout)

    def show_prediction(self, name: str, prediction: Prediction) -> None:
        """Prints a judgement where text is asked for, and the warnings that came with it."""
        if self._as_text:
            self._print(f"{_now()}  {os.path.join(self._folder, name)}: {prediction}", sys.stdout)
        for warning in prediction.warnings:
            self.note(name, f"warning: {warning.message}")

    def note(self, name: str, text: str) -> None:
        """Says what --quiet leaves out."""
        if not self._is_quiet:
            self.say(name, text)

    def say(self, name: str, text: str) -> None:
        """Prints a line about a file, or about the watch as a whole (no name), on standard error."""
        path = os.path.join(self._folder, name) + ": " if name else ""
        self._print(f"{_now()}  {path}{text}", sys.stderr)

    def _print(self, line: str, stream: TextIO) -> None:
        print(escape(line), file=stream, flush=True)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def format_duration(seconds: float) -> str:
    """Returns ``8 s``, ``4 min`` (rounded up) or ``2 h 05 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = int(-(-seconds // 60))
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
