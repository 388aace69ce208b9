"""What people see: on a terminal rich draws tables, colours and progress; everywhere else there are plain lines.

Rich is imported when something is shown on a terminal, and not before. Where it is not installed, a terminal gets the
plain lines, too.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.control import Control

    from .._errors import StrokeClientError

POSITIVE = "bold red"
FAILED = "red"
WARNING = "yellow"
FAINT = "dim"
HEADING = "bold"
"""Styles of rich."""

_DEFAULT_COLUMNS = 80
_REDRAW_SECONDS = 0.1
_RENEW_SECONDS = 0.02
"""Rendering takes 2 ms: so it never costs more than a tenth of a processor."""

_BAR_COLUMNS = 30
_LEAST_COLUMNS = 40
"""On a narrower terminal progress is the count and the time left."""

_ANY_COLUMNS = 10_000
_GAP = "  "

_PATIENCE_SECONDS = 1.0
"""A server that is back sooner is not worth a line."""

_EPISODE_SECONDS = 5.0
"""Without a failure for so long, the next one begins a new wait; more than the longest pause between two tries."""


class Terminal:
    """One output stream, be it a terminal or not.

    Args:
        stream: None: nobody sees anything.
        is_quiet: do not say that something could be shown better.
    """

    def __init__(self, stream: TextIO | None, *, is_quiet: bool = False) -> None:
        self.stream = stream
        self.is_terminal = stream is not None and stream.isatty()
        self._is_quiet = is_quiet

    @cached_property
    def console(self) -> Console | None:
        """What draws on it; None where it is no terminal, or rich is not installed."""
        if not self.is_terminal:
            return None
        try:
            from rich.console import Console
        except ModuleNotFoundError:
            if not self._is_quiet:
                _recommend_rich()
            return None

        return Console(file=self.stream, highlight=False)

    @property
    def columns(self) -> int:
        """Its width now, as it may be resized at any time; 80 where nobody knows."""
        return _DEFAULT_COLUMNS if self.console is None else self.console.width

    def print(self, *parts: str | tuple[str, str], is_folded: bool = False) -> None:
        """Prints one line of printable parts.

        Args:
            parts: texts, or pairs of a text and its style.
            is_folded: break it between words where the terminal ends; otherwise the terminal does so between letters.
        """
        if self.console is not None:
            from rich.text import Text

            line = Text.assemble(*parts)
            if is_folded:
                self.console.print(line, width=max(self.columns - 1, 1))
            else:
                self.console.print(line, soft_wrap=True)
        elif self.stream is not None:
            text = "".join(part if isinstance(part, str) else part[0] for part in parts)
            print(text, file=self.stream, flush=True)

    def print_table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
        """Prints rows under their heads; where the terminal is too narrow, one block of lines for each row.

        Args:
            heads: names of the columns.
            rows: the cells, as many in each row as there are heads, printable.
            right: heads of the columns that are aligned to the right, as numbers are.
        """
        if self.console is None:
            self.print(format_table(heads, rows, right=right))
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), header_style="bold")
        for head in heads:
            table.add_column(head, justify="right" if head in right else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        without_limit = self.console.options.update(width=_ANY_COLUMNS)
        if self.console.measure(table, options=without_limit).maximum <= self.console.width:
            self.console.print(table)
        else:
            self.print(format_blocks(heads, rows))

    def erase_line(self) -> None:
        """Erases the line on which the cursor is, where escape sequences are understood."""
        if self.console is not None:
            self.console.control(_make_erasure())


class StatusLine:
    """The last line of a terminal, which changes and is erased in the end; nothing where it could not be erased.

    Args:
        terminal: where it is shown.
        is_wanted: False: show nothing.
    """

    def __init__(self, terminal: Terminal, *, is_wanted: bool = True) -> None:
        console = terminal.console if is_wanted else None
        self._console = console if console and console.is_terminal and not console.is_dumb_terminal else None
        self._terminal = terminal
        self._is_visible = False
        self._content: RenderableType = ""
        self._columns = 0
        self._drawn_at = 0.0

    @property
    def is_shown(self) -> bool:
        """False where nothing is ever drawn."""
        return self._console is not None

    def draw(self, make_content: Callable[[], RenderableType]) -> None:
        """Shows the first line of what ``make_content`` returns. As long as it stays, it changes ten times a second, to
        be readable."""
        if self._console is None:
            return
        from rich.segment import Segments

        now = time.monotonic()
        # The last column stays free: some terminals go on to the next line as soon as it is written to.
        columns = max(self._console.width - 1, 1)
        is_old = now - self._drawn_at >= (_REDRAW_SECONDS if self._is_visible else _RENEW_SECONDS)
        if is_old or columns != self._columns:
            options = self._console.options.update(width=columns, no_wrap=True)
            lines = self._console.render_lines(make_content(), options, pad=False)
            self._content = Segments(lines[0] if lines else ())
            self._columns, self._drawn_at = columns, now
        elif self._is_visible:
            return
        self._console.print(_make_erasure(), self._content, end="")
        self._is_visible = True

    def erase(self) -> None:
        """Removes the line, so that something else can be printed."""
        if self._is_visible:
            self._terminal.erase_line()
            self._is_visible = False


class ProgressBar:
    """A status line with a bar, count, rate and time left.

    Args:
        total: number of images, those that an earlier run answered included; of one there is no progress.
        terminal: where it is shown.
        done: number of images that an earlier run answered.
        is_wanted: False: show nothing.
    """

    def __init__(self, total: int, terminal: Terminal, *, done: int = 0, is_wanted: bool = True) -> None:
        self._terminal = terminal
        self._line = StatusLine(terminal, is_wanted=is_wanted and total > 1)
        self._progress: Any = None
        if self._line.is_shown:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            # Never started: it would hide the cursor, and draw from a thread between the lines of two streams.
            self._progress = Progress(console=terminal.console, get_time=time.monotonic)
            bar = BarColumn(bar_width=_BAR_COLUMNS, complete_style="cyan", finished_style="cyan")
            left = (TimeRemainingColumn(), TextColumn("left"))
            self._columns = (bar, MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), *left)
            self._narrow_columns = (MofNCompleteColumn(), *left)
            self._task = self._progress.add_task("", total=total, completed=done, rate="")

    def draw(self, done: int) -> None:
        """Shows that ``done`` images are done."""
        self._line.draw(lambda: self._arrange(done))

    def _arrange(self, done: int) -> RenderableType:
        self._progress.update(self._task, completed=done)
        (task,) = self._progress.tasks
        task.fields["rate"] = f"{task.speed:.1f}/s" if task.speed else ""
        is_narrow = self._terminal.columns < _LEAST_COLUMNS
        self._progress.columns = self._narrow_columns if is_narrow else self._columns
        renderable: RenderableType = self._progress.get_renderable()
        return renderable

    def erase(self) -> None:
        """Removes it, so that something else can be printed."""
        self._line.erase()


class WaitNotice:
    """Takes the failures that the client waits out, and says so once for each wait.

    Args:
        say: shows it; it gets the failure.
    """

    def __init__(self, say: Callable[[StrokeClientError], None]) -> None:
        self._say = say
        self._began = self._last = float("-inf")
        self._is_said = False

    def __call__(self, failure: StrokeClientError) -> None:
        """Takes a failure. A busy server is none to speak of: it answers."""
        if failure.code == "RESOURCE_EXHAUSTED":
            return
        now = time.monotonic()
        if now - self._last > _EPISODE_SECONDS:
            self._began, self._is_said = now, False
        self._last = now
        if not self._is_said and now - self._began >= _PATIENCE_SECONDS:
            self._is_said = True
            self._say(failure)


def notice_on(stream: TextIO, server: str) -> WaitNotice | None:
    """Returns what says on a terminal that ``server`` is waited for; None where nobody is watching."""
    terminal = Terminal(stream)
    if not terminal.is_terminal:
        return None

    def say(failure: StrokeClientError) -> None:
        terminal.erase_line()  # on which a progress bar may stand; it is drawn again below
        terminal.print(escape(f"waiting for the server at {server}: {failure}"))

    return WaitNotice(say)


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Returns rows as plain lines under their heads; see ``Terminal.print_table``."""
    widths = [max(map(measure_width, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in (heads, *rows):
        cells = []
        for head, cell, width in zip(heads, row, widths, strict=True):
            padding = " " * (width - measure_width(cell))
            cells.append(padding + cell if head in right else cell + padding)
        lines.append(_GAP.join(cells).rstrip())
    return "\n".join(lines)


def format_blocks(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns each row as a block of lines ``head  cell``; empty cells are left out, blocks parted by empty lines."""
    margin = max(map(measure_width, heads))
    return "\n\n".join(
        "\n".join(f"{head:<{margin}}{_GAP}{cell}" for head, cell in zip(heads, row, strict=True) if cell)
        for row in rows
    )


def measure_width(text: str) -> int:
    """Columns that printable ``text`` takes: East Asian characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        (2 if unicodedata.east_asian_width(character) in "WF" else 1)
        for character in text
        if not unicodedata.combining(character)
    )


def escape(text: str) -> str:
    """Returns ``text`` on one line and without control characters: file names and servers may hold any."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@cache
def _recommend_rich() -> None:
    """Says what rich would bring, once, and where somebody reads it."""
    if sys.stderr is not None and sys.stderr.isatty():
        print("note: for columns, colour and progress: pip install 'strokeserve-client[cli]'", file=sys.stderr)


def _make_erasure() -> Control:
    from rich.control import Control
    from rich.segment import ControlType

    return Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))
