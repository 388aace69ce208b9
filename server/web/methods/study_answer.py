"""The judgement of a study as JSON: the fields of ``PredictStudyResponse``, by the names of ``/predict``. What is not
known is null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.admission.status import Status
from server.core.study.answer import StudyAnswer
from server.core.study.choice import SeriesReport
from server.core.study.slices import StudySlice
from server.images.checks import Reason
from server.images.image_file import ImageWarning
from server.web.answers import encode_json
from server.web.problems import describe_problem


def encode_study(answer: StudyAnswer) -> bytes:
    """The answer to a study. One that was not analysed has no class."""
    spec, first = answer.model.spec, answer.first_look
    return encode_json(
        {
            "class": answer.label or None,
            "id": answer.id,
            "status": "NOT_ANALYSED" if answer.reasons else "ANALYSED",
            "positive_label": answer.positive_label or None,
            "positive_labels": list(spec.positive_labels),
            "score": answer.score if first else None,
            "threshold": spec.study_threshold,
            "top_k": spec.study_top_k,
            "first_look_id": first.id if first else None,
            "first_look_frame": first.frame if first else 0,
            "slices": [describe_slice(placed.slice, placed.position) for placed in answer.slices],
            "series": describe_series(answer.series) if answer.series else None,
            "left_out": [describe_series(series) for series in answer.left_out],
            "failures": [describe_slice(one) for one in answer.failures],
            "warnings": describe_reasons(answer.warnings),
            "reasons": describe_reasons(answer.reasons),
            "model": spec.name,
            "version": spec.version,
            "digest": answer.model.digest,
            "study_instance_uid": answer.study or None,
        }
    )


def describe_slice(one: StudySlice, position: float | None = None) -> dict[str, Any]:
    """One slice; one that was refused has its error."""
    refusal = one.refusal and Status(one.refusal.code, one.refusal.reason, one.refusal.message)
    return {
        "id": one.id,
        "frame": one.frame,
        "sop_instance_uid": (one.facts.sop if one.facts else "") or None,
        "position_mm": position,
        "positive_probability": None if refusal else one.probability,
        "status": None if refusal else "NOT_ANALYSED" if one.reasons else "ANALYSED",
        "reasons": describe_reasons(one.reasons),
        "image_sha256": one.image_sha256 or None,
        "error": describe_problem(refusal, one.id) if refusal else None,
    }


def describe_series(series: SeriesReport) -> dict[str, Any]:
    """One series; that which was judged has no reason."""
    return {
        "series_instance_uid": series.uid or None,
        "slices": series.slices,
        "reason": series.reason or None,
        "message": series.message or None,
        "spacing_mm": series.spacing or None,
        "tilt_degrees": series.tilt,
    }


def describe_reasons(found: Sequence[Reason | ImageWarning]) -> list[dict[str, str]]:
    """Reasons and warnings."""
    return [{"reason": one.reason, "message": one.message} for one in found]
