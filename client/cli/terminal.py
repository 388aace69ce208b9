"""What a terminal can show: its width, colours, and texts cut to fit."""

from __future__ import annotations

import os
import unicodedata
from typing import TextIO

POSITIVE = "1;31"
FAILED = "31"
WARNING = "33"
FAINT = "2"
"""Colours, as the numbers of ANSI's "select graphic rendition"."""


class Terminal:
    """One output stream, be it a terminal or not."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.is_terminal = stream is not None and stream.isatty()
        self.is_capable = self.is_terminal and os.environ.get("TERM") != "dumb"
        """It understands escape sequences."""

        self._has_colour = self.is_capable and not os.environ.get("NO_COLOR")  # no-color.org: set and not empty
        self._ellipsis = "…" if _can_encode(stream, "…") else "..."

    @property
    def columns(self) -> int:
        """Its width now, as it may be resized at any time; 80 where nobody knows."""
        columns = 0
        if self.stream is not None:
            try:
                columns = os.get_terminal_size(self.stream.fileno()).columns
            except (OSError, ValueError):  # no terminal, or no file at all
                columns = 0
        return columns or 80

    def paint(self, text: str, colour: str) -> str:
        """Returns ``text`` in a colour, where there is colour."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self._has_colour else text

    def shorten(self, text: str, width: int) -> str:
        """Returns ``text`` in exactly ``width`` columns: filled up with spaces, or its middle left out.

        The end of a path says more than its beginning (the file's own name), so it gets two thirds.
        """
        missing = width - measure_width(text)
        if missing >= 0:
            return text + " " * missing
        room = max(width - len(self._ellipsis), 0)
        tail = _take_columns(text[::-1], room * 2 // 3)[::-1]
        head = _take_columns(text, room - measure_width(tail))
        short = (head + self._ellipsis + tail)[:width] if room else self._ellipsis[:width]
        return short + " " * (width - measure_width(short))


def measure_width(text: str) -> int:
    """Columns that printable ``text`` takes: East Asian characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_width_of(character) for character in text)


def _width_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _take_columns(text: str, columns: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += _width_of(character)
        if used > columns:
            return text[:index]
    return text


def _can_encode(stream: TextIO | None, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def escape(text: str) -> str:
    """Returns ``text`` on one line and without control characters: file names and servers may hold any."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
