"""Results as they are written and read again: the record of one image, and JSON Lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from .._errors import ImageReadError, StrokeClientError

if TYPE_CHECKING:
    from .._types import ImageWarning, Prediction, Reason

NOT_ANALYSED = "not analysed"
"""What an image is called that has no label: a class of its own, for people."""

_DIGITS = 6
"""Decimals of probabilities: float32 has no more to say."""

LEFT_OUT = "LEFT_OUT"
"""Reason of the records of what folders hold beside images."""

CLASS_COLUMN = "p_"
"""What the names of the fields with a class's probability begin with in a table."""

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


def open_output() -> BinaryIO:
    """Returns standard output.

    Raises:
        ResultFileError: it is closed.
    """
    if sys.stdout is None:
        raise ResultFileError("standard output is closed: name a file with --output FILE or --csv FILE")
    return sys.stdout.buffer


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

    def widen(self, record: Record) -> bool:
        """Returns True when the header is another one from this record on."""

    def fit(self, line: bytes) -> bytes:
        """Returns a record that was written under an earlier header under that of now."""

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
    scores = {label: round_score(score) for label, score in prediction.scores.items()}
    return {
        "file": name,
        "label": prediction.label or None,
        "confidence": round_score(prediction.confidence) if prediction.is_analysed else None,
        "scores": scores,
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
        "warnings": list_reasons(prediction.warnings),
        "request_id": prediction.request_id,
        "status": str(prediction.status),
        "reasons": list_reasons(prediction.reasons),
        "positive_label": prediction.positive_label,
        "positive_labels": list(prediction.positive_labels),
        "positive_probability": round_score(prediction.positive_probability),
        "outlier_score": round_score(prediction.outlier_score),
        "frame": prediction.frame or None,
        **{CLASS_COLUMN + label: score for label, score in scores.items()},
    }


def list_reasons(reasons: Iterable[Reason | ImageWarning]) -> list[Fields]:
    return [{"reason": reason.reason, "message": reason.message} for reason in reasons]


def round_score(score: float) -> float:
    return round(score, _DIGITS)


def failure_to_json(name: str, error: StrokeClientError) -> Fields:
    return {"file": name, "error": str(error), "reason": error.reason, "request_id": error.request_id}


def left_out_to_json(path: str, kind: str) -> Fields:
    """Returns the record of a file that a folder holds beside images."""
    return failure_to_json(path, left_out_error(kind))


def left_out_error(kind: str) -> StrokeClientError:
    return ImageReadError(f"left out of its folder: {kind}", LEFT_OUT)


_JSON_START = b'{"file": "'


class JsonLinesFormat:
    """One JSON object on each line, in ASCII."""

    header = b""

    def encode(self, record: Record) -> bytes:
        return json.dumps(record_to_json(record)).encode("ascii") + b"\n"

    def widen(self, record: Record) -> bool:
        return False

    def fit(self, line: bytes) -> bytes:
        return line

    def decode(self, lines: Iterable[bytes]) -> Iterator[tuple[Fields, bytes]]:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and (number > 1 or begin_alike(line, _JSON_START)):  # the last one, torn
                return
            try:
                fields = json.loads(line)
                name = fields["file"]
            except (ValueError, KeyError, TypeError):
                name = None
            if not isinstance(name, str):
                raise ValueError(f"line {number} is no result of this program")
            yield fields, line


def begin_alike(one: bytes, other: bytes) -> bool:
    """True when one of them begins with the other."""
    return one.startswith(other) or other.startswith(one)


class StreamWriter:
    """Writes records to standard output. A table has no header before the first judgement, which brings its columns:
    failures before that are held back until then, or to the end."""

    def __init__(self, stream: BinaryIO, result_format: ResultFormat) -> None:
        self._stream = stream
        self._format = result_format
        self._held: list[bytes] | None = []

    def write(self, record: Record) -> None:
        has_columns = self._format.widen(record) or not self._format.header
        line = self._format.encode(record)
        if self._held is None:
            self._put(line)
        elif has_columns:
            held, self._held = self._held, None  # once: what cannot be written now is not tried again at the end
            self._put(self._format.header, *map(self._format.fit, held), line)
        else:  # the columns are not known yet
            self._held.append(line)

    def close(self) -> None:
        """Leaves the stream open: it is not this class's."""
        if self._held is not None:
            held, self._held = self._held, None
            with writing_results():
                self._put(self._format.header, *held)

    def _put(self, *lines: bytes) -> None:
        self._stream.write(b"".join(lines))
        self._stream.flush()
