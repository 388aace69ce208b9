"""Results as they are written and read again: the record of one image, JSON Lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from .._errors import StrokeClientError

if TYPE_CHECKING:
    from .._types import Prediction

_DIGITS = 6
"""Decimals of probabilities: float32 has no more to say."""

LEFT_OUT = "LEFT_OUT"
"""Reason of the records of what folders hold beside images."""

Fields = dict[str, Any]
"""A record as JSON has it."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells cheaply that a file has been changed."""

    size: int
    """Bytes."""

    modified: str
    """Time of the last change, ISO 8601 in UTC with microseconds."""

    @classmethod
    def from_times(cls, size: int, modified_ns: int) -> FileStamp:
        """Makes one of ``os.stat_result.st_size`` and ``st_mtime_ns``."""
        moment = datetime.fromtimestamp(modified_ns // 10**9, UTC).replace(microsecond=modified_ns % 10**9 // 1000)
        return cls(size, moment.isoformat(timespec="microseconds"))


@dataclass(frozen=True, slots=True)
class Record:
    """One image with its outcome."""

    file: str
    """The path as the user gave it, ``-`` for standard input."""

    outcome: Prediction | StrokeClientError
    """The judgement, or why there is none."""

    stamp: FileStamp | None = None
    """The file as it was when it was read; None for what is no file."""

    is_image: bool = True
    """False for a folder or pattern without images."""


class ResultFileError(Exception):
    """The file cannot take the results of this run; the message says why and what to do."""


class ResultWriteError(OSError):
    """Results cannot be written; ``filename`` is None where that is standard output."""


@contextmanager
def writing_results() -> Iterator[None]:
    """Inside, an OSError is one of writing results, unless the reader of a pipe has left.

    Raises:
        ResultWriteError: in place of other OSErrors.
    """
    try:
        yield
    except (BrokenPipeError, ResultWriteError):
        raise
    except OSError as error:
        raise ResultWriteError(error.errno, error.strerror, error.filename) from error


class ResultWriter(Protocol):
    """Takes the records of a run."""

    def write(self, record: Record) -> None:
        """Writes one record; it has left the process when this returns.

        Raises:
            OSError: it cannot be written.
        """

    def close(self) -> None:
        """Writes what has to follow, and closes. May be called twice."""


class ResultFormat(Protocol):
    """How records become bytes and the other way round."""

    @property
    def header(self) -> bytes:
        """What a file begins with; may be empty."""

    def encode(self, record: Record) -> bytes:
        """Returns the bytes of one record, its line's end included."""

    def decode(self, lines: Iterable[bytes]) -> Iterator[tuple[Fields, bytes]]:
        """Yields the complete records of a file's ``lines``, each with its bytes; the header is skipped, a torn end
        left out.

        Raises:
            ValueError: a line that is followed by another is no record, or the file never was one of results; the
                message says where.
        """


def record_to_json(record: Record) -> Fields:
    """Returns the object that ``--json`` prints and ``--output`` writes."""
    if isinstance(record.outcome, StrokeClientError):
        fields = failure_to_json(record.file, record.outcome)
    else:
        fields = prediction_to_json(record.file, record.outcome)
    if record.stamp is not None:
        fields |= {"file_bytes": record.stamp.size, "file_modified": record.stamp.modified}
    return fields


def prediction_to_json(name: str, prediction: Prediction) -> Fields:
    return {
        "file": name,
        "label": prediction.label,
        "confidence": round(prediction.confidence, _DIGITS),
        "scores": {label: round(score, _DIGITS) for label, score in prediction.scores.items()},
        "threshold": prediction.threshold,
        "model": prediction.model,
        "version": prediction.version,
        "digest": prediction.digest,
        "image_sha256": prediction.image_sha256,
        "timings_ms": {
            "decode": round(prediction.timings.decode_ms, 3),
            "queue": round(prediction.timings.queue_ms, 3),
            "inference": round(prediction.timings.inference_ms, 3),
        },
        "warnings": [{"reason": warning.reason, "message": warning.message} for warning in prediction.warnings],
        "request_id": prediction.request_id,
    }


def failure_to_json(name: str, error: StrokeClientError) -> Fields:
    return {"file": name, "error": str(error), "reason": error.reason, "request_id": error.request_id}


_JSON_START = b'{"file": "'


class JsonLinesFormat:
    """One JSON object on each line, in ASCII."""

    header = b""

    def encode(self, record: Record) -> bytes:
        return json.dumps(record_to_json(record)).encode("ascii") + b"\n"

    def decode(self, lines: Iterable[bytes]) -> Iterator[tuple[Fields, bytes]]:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and (number > 1 or _agree(line, _JSON_START)):  # the last one, torn
                return
            try:
                fields = json.loads(line)
                name = fields["file"]
            except (ValueError, KeyError, TypeError):
                name = None
            if not isinstance(name, str):
                raise ValueError(f"line {number} is no result of this program")
            yield fields, line


def _agree(one: bytes, other: bytes) -> bool:
    """True when one of them begins with the other."""
    return one.startswith(other) or other.startswith(one)


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
"""``scores`` is ``normal=0.027 stroke=0.973``; ``server_ms`` the time in the server; ``reason`` that of the error."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")
"""A spreadsheet would run a file name that begins so; an apostrophe keeps it text. Taken away again when read."""


class CsvFormat:
    """A table with a header line, in UTF-8 (undecodable file names byte by byte), for spreadsheets and pandas."""

    header = (",".join(CSV_COLUMNS) + "\n").encode("ascii")

    def encode(self, record: Record) -> bytes:
        fields = record_to_json(record)
        if "label" in fields:
            fields["scores"] = " ".join(f"{label}={score}" for label, score in fields["scores"].items())
            fields["server_ms"] = round(sum(fields["timings_ms"].values()), 3)
            fields["warnings"] = " ".join(warning["reason"] for warning in fields["warnings"])
        cells = [fields.get(column) for column in CSV_COLUMNS]
        text = io.StringIO()
        # The line's end is what makes the writer quote a name with either of its characters.
        csv.writer(text, lineterminator="\r\n").writerow([_guard_cell(cell) for cell in cells])
        return (text.getvalue().removesuffix("\r\n") + "\n").encode("utf-8", "surrogateescape")

    def decode(self, lines: Iterable[bytes]) -> Iterator[tuple[Fields, bytes]]:
        record = b""
        number = 0
        for number, line in enumerate(lines, 1):
            record += line
            # Inside quotes a file's name may hold line ends; quotes within quotes are doubled.
            if not line.endswith(b"\n") or record.count(b'"') % 2:
                continue
            if number == 1:
                if record != self.header:
                    raise ValueError("line 1 is not the header of this program's tables")
            else:
                text = io.StringIO(record.decode("utf-8", "surrogateescape"), newline="")
                cells = next(csv.reader(text), [])
                if len(cells) != len(CSV_COLUMNS):
                    raise ValueError(f"line {number} is no result of this program")
                yield _read_cells(cells), record
            record = b""
        if record and number == 1 and not self.header.startswith(record):
            raise ValueError("line 1 is not the header of this program's tables")


def _guard_cell(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def _read_cells(cells: list[str]) -> Fields:
    """Returns what the program needs to know again, as JSON would have it."""
    fields: Fields = {column: cell.removeprefix("'") for column, cell in zip(CSV_COLUMNS, cells, strict=True) if cell}
    if "file_bytes" in fields:
        fields["file_bytes"] = int(fields["file_bytes"])
    return fields


class StreamWriter:
    """Writes records to standard output."""

    def __init__(self, stream: BinaryIO, result_format: ResultFormat) -> None:
        self._stream = stream
        self._format = result_format
        stream.write(result_format.header)

    def write(self, record: Record) -> None:
        self._stream.write(self._format.encode(record))
        self._stream.flush()

    def close(self) -> None:
        """Leaves the stream open: it is not this class's."""
        self._stream.flush()
