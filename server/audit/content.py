"""What a line says of an image: enough to answer for it later, and nothing that shows a patient."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who reads a log needs nothing of what judges
    from server.core.outcomes import Outcome
    from server.core.study.answer import StudyAnswer
    from server.models.contract import ModelSpec

IMAGE = "image"
"""The event of a line about an image."""

STUDY = "study"
"""That of a line about a study; all others are about the log itself."""


@dataclass(frozen=True)
class Content:
    """What of an outcome is kept."""

    salt: bytes | None
    """Turns the SHA-256 of an image into one that says nothing without it; None: the SHA-256 is kept as it is."""

    with_peer: bool
    """Whether the address of the caller is kept."""

    def describe(self, outcome: Outcome, time: str) -> dict[str, object]:
        """The fields of a line. What there is nothing to say of is left out."""
        fields: dict[str, object] = {
            "time": time,
            "event": IMAGE if outcome.study is None else STUDY,
            "id": outcome.request_id,
            "method": outcome.method,
            "code": outcome.code,
            "reason": outcome.reason,
            "client": outcome.caller.name,
            "peer": outcome.caller.peer if self.with_peer else "",
            "trace": outcome.trace,
            "study": outcome.study_id,
        }
        if outcome.image_sha256:
            name, value = self.name_image(outcome.image_sha256)
            fields[name] = value
        fields = {name: value for name, value in fields.items() if value}
        if (detection := outcome.detection) is not None:
            model, spec = detection.model, detection.model.spec
            fields |= {
                "status": "NOT_ANALYSED" if detection.reasons else "ANALYSED",
                "model": spec.name,
                "version": spec.version,
                "digest": model.digest,
                "precision": model.options.precision,
                "label": detection.label,
                "positive_label": detection.positive_label,
                "positive_probability": detection.positive_probability,
                "threshold": spec.threshold,
            }
            fields |= describe_positive(spec)
            if spec.outlier_threshold:
                fields["outlier_score"] = detection.outlier_score
            if detection.reasons:
                fields["reasons"] = [reason.reason for reason in detection.reasons]
        if (study := outcome.study) is not None:
            fields |= describe_study(study)
        fields["ms"] = round(outcome.milliseconds, 3)
        return fields

    def name_image(self, image_sha256: str) -> tuple[str, str]:
        """The field that an image is found by, and what is in it: hexadecimal digits.

        Args:
            image_sha256: 64 lower-case hexadecimal digits.
        """
        if self.salt is None:
            return "image_sha256", image_sha256
        digest = hmac.new(self.salt, image_sha256.encode("ascii"), hashlib.sha256).hexdigest()
        return "image_hmac_sha256", digest


def describe_positive(spec: ModelSpec) -> dict[str, object]:
    """Which labels a probability or a score is of, where ``positive_label`` alone does not say it."""
    return {} if spec.only_positive_label else {"positive_labels": list(spec.positive_labels)}


def describe_study(study: StudyAnswer) -> dict[str, object]:
    """What was answered of a study. Its slices have lines of their own, which name it. No UID is kept: it leads to a
    patient where the archive is at hand."""
    model, spec = study.model, study.model.spec
    fields: dict[str, object] = {
        "status": "NOT_ANALYSED" if study.reasons else "ANALYSED",
        "model": spec.name,
        "version": spec.version,
        "digest": model.digest,
        "precision": model.options.precision,
        "label": study.label,
        "positive_label": study.positive_label,
        "score": study.score,
        "threshold": spec.study_threshold,
        "top_k": spec.study_top_k,
        "slices": len(study.slices),
        "analysed": sum(one.slice.is_analysed and not one.is_duplicate for one in study.slices),
        "left_out": sum(series.slices for series in study.left_out),
        "failures": len(study.failures),
    }
    fields |= describe_positive(spec)
    if study.reasons:
        fields["reasons"] = [reason.reason for reason in study.reasons]
    return fields


def describe_time(seconds: float) -> str:
    """UTC in milliseconds, by ISO 8601: ``2026-01-31T12:00:00.123Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
