"""``GET /openapi.json``: the API of HTTP as OpenAPI 3.1 describes it. Tests send what it allows and compare answers."""

from __future__ import annotations

from starlette.responses import Response

from proto import __version__
from server.admission.judge import MOST_IMAGES
from server.web.answers import encode_json
from server.web.bodies import BATCH_OPTIONS, FORM, IMAGES, OPTIONS
from server.web.forms import FILE
from server.web.methods.study import SLICE_OPTIONS, STUDY_OPTIONS
from server.web.openapi.schemas import (
    BINARY,
    FRAME,
    REQUEST_ID,
    SCHEMAS,
    STATED_DIGEST,
    TEXT,
    Schema,
    list_of,
    one_of,
    record,
)
from server.web.problems import PROBLEM
from server.web.worklist.face import REFRESH

NOTICE = "Research software. Not a medical device. Not for diagnosis or triage of patients."

WORDS = {
    400: "The request is at fault.",
    401: "No token that is known.",
    403: "Known, and not allowed; or a page of another server.",
    404: "No such model, version or path.",
    408: "The body did not come in time.",
    409: "The model that would judge cannot do that.",
    413: "The image, or the body, is too large.",
    415: "The body is no PNG, JPEG or DICOM file.",
    422: "The image cannot be judged, or is not the one that was meant.",
    429: "You are at your limit.",
    500: "A fault of the server: its log has the details under the id.",
    501: "The server was started without it.",
    503: "The server is busy, starting or stopping: again in a moment.",
    504: "The image has waited for too long.",
}


OPTION_SCHEMAS: dict[str, tuple[Schema, str]] = {
    "model": (TEXT, "Name of the model that judges; empty: the default one."),
    "version": (TEXT, "Version of that model; empty: the one served by default."),
    "image_sha256": (STATED_DIGEST, "SHA-256 of the image: it is then checked that these bytes have arrived."),
    "id": (REQUEST_ID, "Stands in the answer and in the server's log. Nothing that names a patient."),
    "slice_id": (REQUEST_ID, "Stands before a file, and is its id in the answer; otherwise that is its number."),
    "frame": (FRAME, "Which frame of a DICOM file with several, from 1; empty or 0: the only one."),
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
            "properties": {**fields, FILE: file},  # options of a study come first
            "required": [FILE],
            "additionalProperties": False,
        }
    }


def answers(schema: Schema | None, *statuses: int, other: str = "") -> Schema:
    """What may be answered: JSON of a schema, if it is not None, or content of another type; and problems."""
    problem = {PROBLEM: {"schema": one_of("Problem")}}
    done = {} if schema is None else {"application/json": {"schema": schema}}
    done |= {other: {"schema": BINARY}} if other else {}
    return {"200": {"description": "Done.", "content": done}} | {
        str(status): {"description": WORDS[status], "content": problem} for status in sorted(statuses)
    }


def page_answers(*statuses: int) -> Schema:
    """What may be answered to those who want a page: problems are pages, too."""
    page = {"text/html": {"schema": TEXT}}
    return {"200": {"description": "Done.", "content": page}} | {
        str(status): {"description": WORDS[status], "content": page} for status in sorted(statuses)
    }


EVERYWHERE = (401, 403, 429, 500, 503)
IMAGE_STATUSES = (*EVERYWHERE, 400, 404, 408, 413, 415, 422, 504)


def look_at(summary: str, responses: Schema) -> Schema:
    """A method that takes one image."""
    return {
        "summary": summary,
        "parameters": list_query(tuple(OPTIONS)),
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": BINARY} for kind in IMAGES} | {FORM: form(BINARY, tuple(OPTIONS))},
        },
        "responses": responses,
    }


def make_paths() -> Schema:
    """All paths."""
    status = record({"status": {"enum": ["SERVING", "NOT_SERVING", "ALIVE"]}})
    not_ready = {"503": {"description": "Not ready.", "content": {"application/json": {"schema": status}}}}
    health = (401, 403, 500)
    return {
        "/predict": {"post": look_at("Judges one image.", answers(one_of("Judgement"), *IMAGE_STATUSES))},
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
        "/study": {
            "post": {
                "summary": "Judges the slices of one study: one answer, and a reason for every series left out. Files "
                "come one after the other, DICOM in any order; PNG and JPEG are one series in the order of their ids.",
                "parameters": list_query(STUDY_OPTIONS),
                "requestBody": {
                    "required": True,
                    "content": {
                        FORM: form(list_of(BINARY, minItems=1), (*STUDY_OPTIONS, *SLICE_OPTIONS)),
                    },
                },
                "responses": answers(one_of("Study"), *IMAGE_STATUSES, 409),
            }
        },
        "/explain": {
            "post": look_at(
                "Judges one image, and shows where in it the evidence for the positive labels lies: for research, not "
                "for localisation. Asked for `image/png`, the answer is the picture alone. Off unless `--explain`.",
                answers(one_of("Explanation"), *IMAGE_STATUSES, 409, 501, other="image/png"),
            )
        },
        "/render": {
            "post": look_at(
                "Shows one image as the model sees it, in its own window and size. Nothing is judged.",
                answers(None, *IMAGE_STATUSES, other="image/png"),
            )
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
        "/worklist": {
            "get": {
                "summary": "Shows which study to look at first, for people: the list that the gateway keeps.",
                "parameters": [
                    {
                        "name": "refresh",
                        "in": "query",
                        "schema": {"type": "string", "pattern": f"^({REFRESH})?$"},
                        "description": "Seconds after which the page looks again, or off.",
                    }
                ],
                "responses": page_answers(*EVERYWHERE, 400, 501),
            }
        },
        "/worklist.json": {
            "get": {
                "summary": "The worklist for programs. `is_old`: the gateway has stopped, newer studies are missing.",
                "responses": answers(one_of("Worklist"), *EVERYWHERE, 501),
            }
        },
        "/worklist.csv": {
            "get": {
                "summary": "The worklist as a table; the header Last-Modified says when the gateway has written it.",
                "responses": answers(None, *EVERYWHERE, 501, other="text/csv"),
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
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    return Response(encode_json(content), media_type="application/json", headers={"cache-control": "no-cache"})
