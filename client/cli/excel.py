"""Tables as Excel opens them by a double click.

They have a byte order mark, without which it takes UTF-8 for the code page of its language, and cells parted by the
list separator of that language. Figures keep their decimal point.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from .csv_results import CsvFormat
from .results import Fields, Record

SEPARATORS = {"comma": ",", "semicolon": ";"}
"""Where a comma is the decimal separator, as in German, Excel parts cells by semicolons."""

_MARK = b"\xef\xbb\xbf"
"""U+FEFF in UTF-8."""

_FIRST_COLUMN = b"file"


class ExcelFormat:
    """A table of ``CsvFormat`` in other bytes.

    Args:
        separator: parts the cells, ``,`` or ``;``.
        has_mark: begin with a byte order mark.
    """

    def __init__(self, separator: str, *, has_mark: bool = True) -> None:
        self._table = CsvFormat()
        self._separator = separator
        self._mark = _MARK if has_mark else b""

    @property
    def header(self) -> bytes:
        """The mark and the first line."""
        return self._mark + self._spell(self._table.header)

    def encode(self, record: Record) -> bytes:
        return self._spell(self._table.encode(record))

    def widen(self, record: Record) -> bool:
        return self._table.widen(record)

    def fit(self, line: bytes) -> bytes:
        return self._spell(self._table.fit(self._unspell(line)))

    def decode(self, lines: Iterable[bytes]) -> Iterator[tuple[Fields, bytes]]:
        taken = [b""]  # the record that the table has taken last, in the bytes of the file

        def feed() -> Iterator[bytes]:
            for number, record in enumerate(_join_lines(lines)):
                taken[0] = record
                if number == 0:
                    record = b"" if self._mark.startswith(record) else record.removeprefix(self._mark)
                yield self._unspell(record)

        for fields, _ in self._table.decode(feed()):
            yield fields, taken[0]

    def _spell(self, record: bytes) -> bytes:
        return _rewrite(record, ",", self._separator)

    def _unspell(self, record: bytes) -> bytes:
        return _rewrite(record, self._separator, ",")


def choose_table(excel: str | None, path: str = "") -> CsvFormat | ExcelFormat:
    """Returns the format of a table.

    Args:
        excel: a key of ``SEPARATORS``; None: not for Excel.
        path: the file; one that holds a table goes on as it began.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(_MARK) + len(_FIRST_COLUMN) + 1)
    except (OSError, ValueError):
        start = b""
    first = start.removeprefix(_MARK)
    if first.startswith(_FIRST_COLUMN) and len(first) > len(_FIRST_COLUMN):
        has_mark = start.startswith(_MARK)
        separator = first[len(_FIRST_COLUMN) :][:1].decode("latin-1")
        if separator in SEPARATORS.values() and (has_mark or separator != ","):
            return ExcelFormat(separator, has_mark=has_mark)
        return CsvFormat()
    return ExcelFormat(SEPARATORS[excel]) if excel else CsvFormat()


def _join_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yields whole records, whose cells may hold line ends within quotes, and a torn end as it is."""
    record = b""
    for line in lines:
        record += line
        if line.endswith(b"\n") and record.count(b'"') % 2 == 0:
            yield record
            record = b""
    if record:
        yield record


def _rewrite(record: bytes, old: str, new: str) -> bytes:
    """Returns a record, its line's end included, with other separators; one that is torn as far as it goes."""
    if old == new or not record:
        return record
    if not record.endswith(b"\n") or record.count(b'"') % 2:
        return record.replace(old.encode(), new.encode())
    text = record.removesuffix(b"\n").decode("utf-8", "surrogateescape")
    cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=old), [])
    output = io.StringIO()
    # The line's end is what makes the writer quote a name with either of its characters.
    csv.writer(output, delimiter=new, lineterminator="\r\n").writerow(cells)
    return (output.getvalue().removesuffix("\r\n") + "\n").encode("utf-8", "surrogateescape")
