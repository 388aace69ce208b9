"""Tables as CSV that spreadsheets open, and run nothing of: what stands in a cell may be of anybody's making."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""How cells begin that a spreadsheet would run, or take the first character of."""


def write_csv(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table with its header, lines ended by a line feed."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in row)
    return output.getvalue()
