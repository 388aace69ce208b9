"""Tables for the terminal: columns aligned while they fit, otherwise one block of lines for each row."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .terminal import Terminal, measure_width

_GAP = "  "


def terminal_width() -> int | None:
    """Returns the columns of the terminal on standard output; None where it is no terminal and lines may be long."""
    terminal = Terminal(sys.stdout)
    return terminal.columns if terminal.is_terminal else None


def format_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None, right: Sequence[str] = ()
) -> str:
    """Returns rows as lines under their heads.

    Args:
        heads: names of the columns.
        rows: the cells, as many in each row as there are heads, on one line each.
        width: columns of the terminal; in less than a table needs, each row becomes lines of ``head  cell``. None:
            no limit.
        right: heads of the columns that are aligned to the right, as numbers are.
    """
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(map(measure_width, column)) for column in columns]
    if width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        return format_blocks(heads, rows)
    lines = []
    for row in (heads, *rows):
        cells = []
        for head, cell, cell_width in zip(heads, row, widths, strict=True):
            padding = " " * (cell_width - measure_width(cell))
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
