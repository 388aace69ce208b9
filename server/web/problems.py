"""Errors as HTTP tells them: the one table from reasons and codes to its statuses, and ``application/problem+json``
(RFC 9457)."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from server.admission.status import Status
from server.web.answers import encode_json

PROBLEM = "application/problem+json"

STATUS_OF_CODE = {
    "INVALID_ARGUMENT": 400,
    "DATA_LOSS": 422,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 503,
    "DEADLINE_EXCEEDED": 504,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "FAILED_PRECONDITION": 409,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
}
STATUS_OF_REASON = {
    "PATH_UNKNOWN": 404,
    "METHOD_UNKNOWN": 405,
    "MESSAGE_LATE": 408,
    "STREAM_IDLE": 408,
    "DICOM_TOO_LARGE": 413,
    "IMAGE_TOO_LARGE": 413,
    "MESSAGE_TOO_LARGE": 413,
    "STUDY_TOO_LARGE": 413,
    "CONTENT_TYPE_UNSUPPORTED": 415,
    "DICOM_NOT_SUPPORTED": 415,
    "DICOM_NO_DECODER": 415,
    "IMAGE_UNDECODABLE": 415,
    "IMAGE_SHA256_INVALID": 400,
    "HEAD_TOO_LARGE": 431,
    "HTTP_VERSION_UNSUPPORTED": 505,
}
"""Where HTTP has a status of its own."""

IMAGES, LIMIT = ("IMAGE_", "DICOM_"), "LIMIT_"
UNSUITABLE, TOO_MANY = 422, 429
"""Of other reasons that begin so: the image that came cannot be judged, or its sender has sent too many."""


def find_http_status(status: Status) -> int:
    """The status of HTTP for one of ours."""
    if status.reason in STATUS_OF_REASON:
        return STATUS_OF_REASON[status.reason]
    if status.reason.startswith(IMAGES) and status.code == "INVALID_ARGUMENT":
        return UNSUITABLE
    if status.reason.startswith(LIMIT):
        return TOO_MANY
    return STATUS_OF_CODE[status.code]


def describe_problem(status: Status, request_id: str) -> dict[str, Any]:
    """The members of a problem."""
    number = find_http_status(status)
    found = {
        "type": "about:blank",
        "title": HTTPStatus(number).phrase,
        "status": number,
        "detail": status.message,
        "reason": status.reason,
        "id": request_id,
    }
    return found | ({"retry_after_ms": status.retry_after_ms} if status.retry_after_ms else {})


def make_headers(status: Status) -> dict[str, str]:
    """What stands in the head of such an answer."""
    headers = {"stroke-reason": status.reason}
    if status.retry_after_ms:
        headers["retry-after"] = str(math.ceil(status.retry_after_ms / 1000))
    if status.code == "UNAUTHENTICATED":
        headers["www-authenticate"] = 'Bearer realm="stroke"'
    return headers


def make_problem(status: Status, request_id: str) -> Response:
    """A whole answer."""
    return Response(
        encode_json(describe_problem(status, request_id)), find_http_status(status), make_headers(status), PROBLEM
    )
