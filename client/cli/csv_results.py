"""Results as a table: CSV, of this version and of those before it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from .._errors import StrokeClientError
from .results import CLASS_COLUMN, Fields, Record, begin_alike, record_to_json

CSV_COLUMNS = (
    "file",
    "label",
    "confidence",
    "scores",
    "threshold",
    "model",
    "version",
    "digest",
    "image_sha256",
    "server_ms",
    "warnings",
    "error",
    "reason",
    "request_id",
    "file_bytes",
    "file_modified",
)
"""``scores`` is ``normal=0.027 stroke=0.973``; ``server_ms`` the time in the server; ``reason`` that of the error, or
why an image was not analysed. A table that an earlier version began has these alone."""

STATUS_COLUMNS = ("status", "positive_label")
"""Behind those; a table that a later version began has these as well."""

DICOM_COLUMNS = ("outlier_score", "frame")
"""Behind those, in a table of a version after that."""

POSITIVE_COLUMNS = ("positive_probability",)
"""Behind those; and then, once a model has judged, a column ``p_LABEL`` with the probability of each of its classes."""

_GENERATIONS = (
    CSV_COLUMNS + STATUS_COLUMNS + DICOM_COLUMNS + POSITIVE_COLUMNS,
    CSV_COLUMNS + STATUS_COLUMNS + DICOM_COLUMNS,
    CSV_COLUMNS + STATUS_COLUMNS,
    CSV_COLUMNS,
)
"""What tables begin with, the columns of classes left out: of this version, and of those before it."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")
"""A spreadsheet would run a file name that begins so; an apostrophe keeps it text. Taken away again when read."""


class CsvFormat:
    """A table with a header line, in UTF-8 (undecodable file names byte by byte), for spreadsheets and pandas.

    One for each table: it knows the columns, those for classes from the first judgement on.
    """

    def __init__(self) -> None:
        self._columns: tuple[str, ...] = _GENERATIONS[0]
        self._is_widened = False

    @property
    def header(self) -> bytes:
        """The first line."""
        return _encode_row(self._columns)

    def encode(self, record: Record) -> bytes:
        fields = record_to_json(record)
        if "label" in fields:
            fields["scores"] = " ".join(f"{label}={score}" for label, score in fields["scores"].items())
            fields["server_ms"] = round(sum(fields["timings_ms"].values()), 3)
            fields["warnings"] = " ".join(warning["reason"] for warning in fields["warnings"])
            fields["reason"] = " ".join(reason["reason"] for reason in fields["reasons"])
        return _encode_row([_guard_cell(fields.get(column)) for column in self._columns])

    def widen(self, record: Record) -> bool:
        has_room = self._columns in _GENERATIONS[:-1]
        if not has_room or isinstance(record.outcome, StrokeClientError):
            return False
        self._columns += tuple(CLASS_COLUMN + label for label in record.outcome.scores)
        self._is_widened = True
        return True

    def fit(self, line: bytes) -> bytes:
        missing = len(self._columns) - len(_decode_row(line))
        return line.removesuffix(b"\n") + b"," * missing + b"\n"

    def decode(self, lines: Iterable[bytes]) -> Iterator[tuple[Fields, bytes]]:
        record = b""
        columns: tuple[str, ...] = ()
        for number, line in enumerate(lines, 1):
            record += line
            # Inside quotes a file's name may hold line ends; quotes within quotes are doubled.
            if not line.endswith(b"\n") or record.count(b'"') % 2:
                continue
            cells = _decode_row(record)
            if not columns:
                if _encode_row(cells) != record:
                    raise ValueError("line 1 is not the header of this program's tables")
                columns = self._read_header(cells)
            elif len(cells) != len(columns):
                raise ValueError(f"line {number} is no result of this program")
            else:
                yield _read_cells(columns, cells), record
            record = b""
        if record and not columns and not begin_alike(_encode_row(CSV_COLUMNS).removesuffix(b"\n"), record):
            raise ValueError("line 1 is not the header of this program's tables")

    def _read_header(self, cells: list[str]) -> tuple[str, ...]:
        """Returns the columns of a table, and goes on with them."""
        columns = tuple(cells)
        base = next((base for base in _GENERATIONS if columns[: len(base)] == base), ())
        classes = columns[len(base) :]
        is_ours = all(column.startswith(CLASS_COLUMN) for column in classes) and not (classes and base == CSV_COLUMNS)
        if not base or not is_ours:
            raise ValueError("line 1 is not the header of this program's tables")
        if not self._is_widened:  # otherwise the table is still to be written anew
            self._columns = columns
        return columns


def _encode_row(cells: Iterable[Any]) -> bytes:
    text = io.StringIO()
    # The line's end is what makes the writer quote a name with either of its characters.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return (text.getvalue().removesuffix("\r\n") + "\n").encode("utf-8", "surrogateescape")


def _decode_row(line: bytes) -> list[str]:
    return next(csv.reader(io.StringIO(line.decode("utf-8", "surrogateescape"), newline="")), [])


def _guard_cell(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def _read_cells(columns: Iterable[str], cells: list[str]) -> Fields:
    """Returns what the program needs to know again, as JSON would have it."""
    fields: Fields = {column: cell.removeprefix("'") for column, cell in zip(columns, cells, strict=True) if cell}
    if "file_bytes" in fields:
        fields["file_bytes"] = int(fields["file_bytes"])
    return fields
