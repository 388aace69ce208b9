"""Judgements and models as JSON: the paper's ``class`` and ``confidence``, and ours beside them."""

from __future__ import annotations

import json
from typing import Any

from server.core.detector import Detection


def describe_detection(detection: Detection, request_id: str) -> dict[str, Any]:
    """The judgement of one image. An image that was not analysed has neither class nor confidence."""
    spec, is_analysed = detection.model.spec, not detection.reasons
    return {
        "class": detection.label if is_analysed else None,
        "confidence": detection.confidence if is_analysed else None,
        "id": request_id,
        "status": "ANALYSED" if is_analysed else "NOT_ANALYSED",
        "scores": dict(zip(spec.labels, detection.probabilities, strict=True)),
        "positive_label": detection.positive_label,
        "positive_labels": list(spec.positive_labels),
        "positive_probability": detection.positive_probability,
        "threshold": spec.threshold,
        "outlier_score": detection.outlier_score,
        "model": spec.name,
        "version": spec.version,
        "channel": detection.channel,
        "digest": detection.model.digest,
        "image_sha256": detection.image_sha256,
        "timings": {
            "decode_ms": detection.decode_ms,
            "queue_ms": detection.queue_ms,
            "inference_ms": detection.inference_ms,
        },
        "warnings": [{"reason": one.reason, "message": one.message} for one in detection.warnings],
        "reasons": [{"reason": one.reason, "message": one.message} for one in detection.reasons],
    }


def encode_detection(detection: Detection, request_id: str) -> bytes:
    """The answer to a single image."""
    return encode_json(describe_detection(detection, request_id))


def encode_json(content: Any) -> bytes:
    """The bytes of an answer.

    Raises:
        ValueError: it holds a number that JSON has not.
    """
    return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
