"""``GET /openapi.json``: the API of HTTP as OpenAPI 3.1 describes it. Tests send what it allows and compare answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from proto import __version__
from server.admission.judge import MOST_IMAGES
from server.web.answers import encode_json
from server.web.bodies import BATCH_OPTIONS, FILE, FORM, IMAGES, OPTIONS
from server.web.problems import PROBLEM

Schema = dict[str, Any]

NOTICE = "Research software. Not a medical device. Not for diagnosis or triage of patients."
NUMBER, TEXT, COUNT = {"type": "number"}, {"type": "string"}, {"type": "integer"}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
STATED_DIGEST = {"type": "string", "pattern": "^([0-9a-fA-F]{64})?$"}
REQUEST_ID = {"type": "string", "pattern": "^[ -~]{0,128}$"}

WORDS = {
    400: "The request is at fault.",
    401: "No token that is known.",
    403: "Known, and not allowed; or a page of another server.",
    404: "No such model, version or path.",
    408: "The body did not come in time.",
    413: "The image, or the body, is too large.",
    415: "The body is no PNG or JPEG.",
    422: "The image cannot be judged, or is not the one that was meant.",
    429: "You are at your limit.",
    500: "A fault of the server: its log has the details under the id.",
    503: "The server is busy, starting or stopping: again in a moment.",
    504: "The image has waited for too long.",
}


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


REASON = record({"reason": TEXT, "message": TEXT})

JUDGEMENT = record(
    {
        "class": {"type": ["string", "null"], "description": "The label answered; null when status is NOT_ANALYSED."},
        "confidence": {"type": ["number", "null"], "minimum": 0, "maximum": 1, "description": "Probability of class."},
        "id": TEXT,
        "status": {"enum": ["ANALYSED", "NOT_ANALYSED"]},
        "scores": {"type": "object", "additionalProperties": PROBABILITY},
        "positive_label": TEXT,
        "positive_probability": PROBABILITY,
        "threshold": {**PROBABILITY, "description": "The positive label is answered strictly above it."},
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
        **dict.fromkeys(("name", "version", "task", "intended_use", "positive_label", "precision", "runtime"), TEXT),
        **dict.fromkeys(("runtime_version", "profile", "server_version", "model_card"), TEXT),
        **dict.fromkeys(("input_height", "input_width", "input_channels"), COUNT),
        **dict.fromkeys(("threads", "busy_threads", "workers"), COUNT),
        "digest": DIGEST,
        "is_default": {"type": "boolean"},
        "labels": list_of(TEXT, minItems=2),
        "threshold": PROBABILITY,
        "metrics": {"type": "object", "additionalProperties": NUMBER},
        "provenance": {"type": "object", "additionalProperties": TEXT},
    },
    optional=("model_card",),
)

OPTION_SCHEMAS: dict[str, tuple[Schema, str]] = {
    "model": (TEXT, "Name of the model that judges; empty: the default one."),
    "version": (TEXT, "Version of that model; empty: the one served by default."),
    "image_sha256": (STATED_DIGEST, "SHA-256 of the image: it is then checked that these bytes have arrived."),
    "id": (REQUEST_ID, "Stands in the answer and in the server's log. Nothing that names a patient."),
}


def list_query(names: tuple[str, ...]) -> list[Schema]:
    """Options as parameters of a query."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": OPTION_SCHEMAS[name][0],
            "description": OPTION_SCHEMAS[name][1],
        }
        for name in names
    ]


def form(file: Schema, names: tuple[str, ...]) -> Schema:
    """A form with images, and the options of these names."""
    fields = {name: {**OPTION_SCHEMAS[name][0], "description": OPTION_SCHEMAS[name][1]} for name in names}
    return {
        "schema": {
            "type": "object",
            "properties": {FILE: file, **fields},
            "required": [FILE],
            "additionalProperties": False,
        }
    }


def answers(schema: Schema, *statuses: int) -> Schema:
    """What may be answered: ``schema``, and problems."""
    problem = {PROBLEM: {"schema": one_of("Problem")}}
    return {"200": {"description": "Done.", "content": {"application/json": {"schema": schema}}}} | {
        str(status): {"description": WORDS[status], "content": problem} for status in sorted(statuses)
    }


EVERYWHERE = (401, 403, 429, 500, 503)
IMAGE_STATUSES = (*EVERYWHERE, 400, 404, 408, 413, 415, 422, 504)
BINARY = {"type": "string", "format": "binary"}


def make_paths() -> Schema:
    """All paths."""
    status = record({"status": {"enum": ["SERVING", "NOT_SERVING", "ALIVE"]}})
    not_ready = {"503": {"description": "Not ready.", "content": {"application/json": {"schema": status}}}}
    health = (401, 403, 500)
    return {
        "/predict": {
            "post": {
                "summary": "Judges one image.",
                "parameters": list_query(tuple(OPTIONS)),
                "requestBody": {
                    "required": True,
                    "content": {kind: {"schema": BINARY} for kind in IMAGES} | {FORM: form(BINARY, tuple(OPTIONS))},
                },
                "responses": answers(one_of("Judgement"), *IMAGE_STATUSES),
            }
        },
        "/predict/batch": {
            "post": {
                "summary": f"Judges 1 to {MOST_IMAGES} images; one that cannot be judged has its error in its place.",
                "parameters": list_query(BATCH_OPTIONS),
                "requestBody": {
                    "required": True,
                    "content": {FORM: form(list_of(BINARY, minItems=1, maxItems=MOST_IMAGES), BATCH_OPTIONS)},
                },
                "responses": answers(
                    record(
                        {
                            "id": TEXT,
                            "results": list_of({"anyOf": [one_of("Judgement"), record({"error": one_of("Problem")})]}),
                        }
                    ),
                    *IMAGE_STATUSES,
                ),
            }
        },
        "/models": {
            "get": {
                "summary": "Describes all models that are served.",
                "responses": answers(record({"models": list_of(one_of("Model"))}), *EVERYWHERE),
            }
        },
        "/models/{name}": {
            "get": {
                "summary": "Describes one model, with its model card.",
                "parameters": [
                    {
                        "name": "name",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string", "pattern": "^[^/]+$"},
                    },
                    *list_query(("version",)),
                ],
                "responses": answers(one_of("Model"), *EVERYWHERE, 404),
            }
        },
        "/health/live": {"get": {"summary": "Whether the process lives.", "responses": answers(status, *health)}},
        "/health/ready": {
            "get": {"summary": "Whether images are judged now.", "responses": answers(status, *health) | not_ready}
        },
    }


def make_document() -> Response:
    """The document, made once."""
    content = {
        "openapi": "3.1.0",
        "info": {
            "title": "StrokeServe",
            "version": __version__,
            "summary": "Stroke detection on brain-CT slices.",
            "description": f"{NOTICE}\n\nThe same core as the gRPC service stroke.v1.StrokeService: same limits, "
            "reasons, models. Nothing of an upload is kept, on disk or elsewhere.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": make_paths(),
        "components": {
            "schemas": {"Judgement": JUDGEMENT, "Problem": PROBLEM_FIELDS, "Model": MODEL, "Reason": REASON},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    return Response(encode_json(content), media_type="application/json", headers={"cache-control": "no-cache"})
