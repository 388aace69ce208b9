"""What bodies and answers of HTTP look like, as JSON Schema has it (2020-12, which OpenAPI 3.1 uses)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.web.worklist.content import COLUMNS, NUMBERS, URGENCIES

Schema = dict[str, Any]

NUMBER, TEXT, COUNT = {"type": "number"}, {"type": "string"}, {"type": "integer"}
NULL_TEXT, NULL_NUMBER = {"type": ["string", "null"]}, {"type": ["number", "null"]}
BINARY = {"type": "string", "format": "binary"}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
STATED_DIGEST = {"type": "string", "pattern": "^([0-9a-fA-F]{64})?$"}
FRAME = {"type": "string", "pattern": "^([0-9]{1,9})?$"}
REQUEST_ID = {"type": "string", "pattern": "^[ -~]{0,128}$"}


def one_of(kind: str) -> Schema:
    return {"$ref": f"#/components/schemas/{kind}"}


def list_of(item: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": item, **limits}


def record(fields: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """An object whose fields are all there, but for the optional ones."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": [name for name in fields if name not in optional],
    }


POSITIVE_LABELS = {**list_of(TEXT, minItems=1), "description": "The labels that are looked for."}

REASON = record({"reason": TEXT, "message": TEXT})

JUDGEMENT = record(
    {
        "class": {"type": ["string", "null"], "description": "The label answered; null when status is NOT_ANALYSED."},
        "confidence": {"type": ["number", "null"], "minimum": 0, "maximum": 1, "description": "Probability of class."},
        "id": TEXT,
        "status": {"enum": ["ANALYSED", "NOT_ANALYSED"]},
        "scores": {"type": "object", "additionalProperties": PROBABILITY},
        "positive_label": {
            **TEXT,
            "description": "The most probable of positive_labels: class, where that is positive.",
        },
        "positive_labels": POSITIVE_LABELS,
        "positive_probability": {**PROBABILITY, "description": "The sum of the scores of positive_labels."},
        "threshold": {**PROBABILITY, "description": "A positive label is answered strictly above it."},
        "outlier_score": {
            "type": "number",
            "minimum": 0,
            "description": "How unlike the images that the model knows this one is; 0: the model does not tell.",
        },
        "model": TEXT,
        "version": TEXT,
        "channel": {
            "enum": ["stable", "canary", ""],
            "description": "canary: a version on trial; empty: it was named.",
        },
        "digest": {**DIGEST, "description": "SHA-256 of the model file that judged."},
        "image_sha256": {**DIGEST, "description": "SHA-256 of the bytes that were judged."},
        "timings": record(
            {name: {"type": "number", "minimum": 0} for name in ("decode_ms", "queue_ms", "inference_ms")}
        ),
        "warnings": list_of(one_of("Reason")),
        "reasons": {**list_of(one_of("Reason")), "description": "Why status is NOT_ANALYSED."},
    }
)

EXPLANATION = record(
    {
        "prediction": one_of("Judgement"),
        "overlay_png": {
            "type": ["string", "null"],
            "contentEncoding": "base64",
            "contentMediaType": "image/png",
            "description": "The image as the model sees it under the heatmap; null, as the others, when the image was "
            "not analysed.",
        },
        "heatmap": {
            "type": ["array", "null"],
            "items": list_of({"type": "number", "minimum": 0}),
            "description": "Rows of cells: what the log-odds of the positive labels gain from each.",
        },
        "box": {
            **record(dict.fromkeys(("left", "top", "right", "bottom"), NUMBER)),
            "type": ["object", "null"],
            "description": "Where the heatmap lies in the picture, in its pixels.",
        },
    }
)

PROBLEM_FIELDS = record(
    {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "A sentence for people."},
        "reason": {
            "type": "string",
            "pattern": "^[A-Z][A-Z0-9_]*$",
            "description": "For programs; never changes meaning.",
        },
        "id": {"type": "string", "description": "Also in the server's log."},
        "retry_after_ms": {"type": "integer", "minimum": 1},
    },
    optional=("retry_after_ms",),
)

MODEL = record(
    {
        **dict.fromkeys(("name", "version", "task", "intended_use", "precision", "runtime"), TEXT),
        **dict.fromkeys(("runtime_version", "profile", "server_version", "model_card"), TEXT),
        **dict.fromkeys(("input_height", "input_width", "input_channels"), COUNT),
        **dict.fromkeys(("threads", "busy_threads", "workers"), COUNT),
        "digest": DIGEST,
        "is_default": {"type": "boolean"},
        "labels": list_of(TEXT, minItems=2),
        "positive_label": {**NULL_TEXT, "description": "The only one of positive_labels; null: there are several."},
        "positive_labels": POSITIVE_LABELS,
        "threshold": PROBABILITY,
        "metrics": {"type": "object", "additionalProperties": NUMBER},
        "provenance": {"type": "object", "additionalProperties": TEXT},
        "windows": {
            **list_of(record({"level": NUMBER, "width": NUMBER})),
            "description": "How CT values become grey levels, in Hounsfield units; none: it takes no DICOM.",
        },
        "study_top_k": {**COUNT, "description": "0: the model judges no studies."},
        **dict.fromkeys(("study_threshold", "outlier_threshold", "indeterminate_margin"), NUMBER),
        "explains": {"type": "boolean", "description": "Whether the server explains answers of this model."},
    },
    optional=("model_card",),
)

SLICE = record(
    {
        "id": {**TEXT, "description": "As the form calls it, otherwise its number."},
        "frame": {**COUNT, "description": "Of a file with several, from 1; 0: the only one."},
        "sop_instance_uid": NULL_TEXT,
        "position_mm": {**NULL_NUMBER, "description": "Along the normal of the slices, feet to head."},
        "positive_probability": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "status": {"enum": ["ANALYSED", "NOT_ANALYSED", None], "description": "null: it has an error."},
        "reasons": list_of(one_of("Reason")),
        "image_sha256": NULL_TEXT,
        "error": {"anyOf": [one_of("Problem"), {"type": "null"}]},
    }
)

SERIES = record(
    {
        "series_instance_uid": NULL_TEXT,
        "slices": COUNT,
        "reason": {**NULL_TEXT, "description": "Why it was left out."},
        "message": NULL_TEXT,
        "spacing_mm": {**NULL_NUMBER, "description": "The median distance of its slices."},
        "tilt_degrees": NUMBER,
    }
)

STUDY = record(
    {
        "class": {"type": ["string", "null"], "description": "The label answered; null when status is NOT_ANALYSED."},
        "id": TEXT,
        "status": {"enum": ["ANALYSED", "NOT_ANALYSED"]},
        "positive_label": {
            **NULL_TEXT,
            "description": "The most probable of positive_labels, on average over the slices that made the score; "
            "null: there are several, and no slice was analysed.",
        },
        "positive_labels": POSITIVE_LABELS,
        "score": {
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "description": "The mean of the top_k highest positive_probability; null: no slice was analysed.",
        },
        "threshold": {**PROBABILITY, "description": "A positive label is answered strictly above it."},
        "top_k": COUNT,
        "first_look_id": {**NULL_TEXT, "description": "The slice to look at first."},
        "first_look_frame": COUNT,
        "slices": {**list_of(one_of("StudySlice")), "description": "Of the series that was judged, feet to head."},
        "series": {"anyOf": [one_of("Series"), {"type": "null"}], "description": "The one that was judged."},
        "left_out": {**list_of(one_of("Series")), "description": "Every other series, with its reason."},
        "failures": {**list_of(one_of("StudySlice")), "description": "Files that are no slice of any series."},
        "warnings": list_of(one_of("Reason")),
        "reasons": {**list_of(one_of("Reason")), "description": "Why status is NOT_ANALYSED."},
        "model": TEXT,
        "version": TEXT,
        "digest": {**DIGEST, "description": "SHA-256 of the model file that judged."},
        "study_instance_uid": NULL_TEXT,
    }
)

WORKLIST = record(
    {
        "written_at": {**TEXT, "format": "date-time"},
        "age_seconds": {**NUMBER, "description": "Since then; below 0 where the gateway's clock is ahead."},
        "is_old": {"type": "boolean", "description": "The gateway has stopped: newer studies are missing."},
        "hours": {**NUMBER, "description": "How far back it goes."},
        "waiting": {**COUNT, "description": "Studies that have come to the gateway and are not judged yet."},
        "left_out": {**COUNT, "description": "Less urgent studies that found no room."},
        "counts": record(dict.fromkeys(URGENCIES, COUNT)),
        "studies": {
            **list_of(
                record(
                    dict.fromkeys(COLUMNS, NULL_TEXT)
                    | {name: {**NULL_NUMBER, "minimum": 0, "maximum": 1} for name in NUMBERS}
                    | {"urgency": {"enum": list(URGENCIES)}}
                )
            ),
            "description": "In the order in which to look at them.",
        },
    }
)

SCHEMAS = {
    "Judgement": JUDGEMENT,
    "Explanation": EXPLANATION,
    "Problem": PROBLEM_FIELDS,
    "Model": MODEL,
    "Reason": REASON,
    "Study": STUDY,
    "StudySlice": SLICE,
    "Series": SERIES,
    "Worklist": WORKLIST,
}
