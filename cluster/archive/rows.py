"""Rows of results: the fields of the client's JSON, by the same names, with the same decimals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from cluster.archive.storage import Content
from server.admission.status import Status
from server.core.detector import Detection

DECIMALS = 6
"""Of probabilities: float32 has no more to say."""

REASONS = pa.list_(pa.struct({"reason": pa.string(), "message": pa.string()}))
CLASS_COLUMN = "p_"
"""What the names of the columns with a class's probability begin with."""

MEASURED = ("timings_ms",)
"""Columns that differ from run to run; all others are the same however often a file is judged."""

Row = dict[str, Any]


def make_schema(labels: Sequence[str]) -> pa.Schema:
    """The columns of results of a model with these labels. A file that was not judged has ``error`` and ``reason``."""
    number, text = pa.float64(), pa.string()
    return pa.schema(
        {
            "file": text,
            "label": text,
            "confidence": number,
            "scores": pa.struct(dict.fromkeys(labels, number)),
            "threshold": number,
            "model": text,
            "version": text,
            "digest": text,
            "image_sha256": text,
            "timings_ms": pa.struct({"decode": number, "queue": number, "inference": number}),
            "warnings": REASONS,
            "request_id": text,
            "status": text,
            "reasons": REASONS,
            "positive_label": text,
            "positive_labels": pa.list_(text),
            "positive_probability": number,
            "outlier_score": number,
            "frame": pa.int32(),
            **{CLASS_COLUMN + label: number for label in labels},
            "error": text,
            "reason": text,
            "file_bytes": pa.int64(),
            "file_modified": text,
        }
    )


def make_row(file: str, request_id: str, outcome: Detection | Status, content: Content | None) -> Row:
    """What came of one file.

    Args:
        file: how the user would call it.
        request_id: under which the log has what it says of it.
        outcome: the judgement, or why there is none.
        content: the file as it was read; None: it could not be.
    """
    name = file.encode("utf-8", "backslashreplace").decode()  # names of files need not be text
    fields: Row = {"file": name, "request_id": request_id}
    if content is not None:
        fields |= {"file_bytes": content.size, "file_modified": content.modified}
    if isinstance(outcome, Status):
        return fields | {"error": outcome.message, "reason": outcome.reason}
    spec = outcome.model.spec
    scores = dict(zip(spec.labels, map(round_score, outcome.probabilities), strict=True))
    return fields | {
        "label": outcome.label or None,
        "confidence": None if outcome.reasons else round_score(outcome.confidence),
        "scores": scores,
        "threshold": spec.threshold,
        "model": spec.name,
        "version": spec.version,
        "digest": outcome.model.digest,
        "image_sha256": outcome.image_sha256,
        "timings_ms": {
            "decode": round(outcome.decode_ms, 3),
            "queue": round(outcome.queue_ms, 3),
            "inference": round(outcome.inference_ms, 3),
        },
        "warnings": list_reasons(outcome.warnings),
        "status": "NOT_ANALYSED" if outcome.reasons else "ANALYSED",
        "reasons": list_reasons(outcome.reasons),
        "positive_label": outcome.positive_label,
        "positive_labels": list(spec.positive_labels),
        "positive_probability": round_score(outcome.positive_probability),
        "outlier_score": round_score(outcome.outlier_score),
        **{CLASS_COLUMN + label: score for label, score in scores.items()},
    }


def list_reasons(reasons: Iterable[Any]) -> list[Row]:
    """Why something is so, as a column has it."""
    return [{"reason": one.reason, "message": one.message} for one in reasons]


def round_score(score: float) -> float:
    """A probability with as many decimals as it has."""
    return round(score, DECIMALS)
