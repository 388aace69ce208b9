"""What callers learn of errors: the one table from domain errors to canonical codes.

    ImageError, RequestError  INVALID_ARGUMENT
    IntegrityError            DATA_LOSS
    ModelNotFoundError        NOT_FOUND
    OverloadedError           RESOURCE_EXHAUSTED
    BudgetExceededError       DEADLINE_EXCEEDED
    UnavailableError          UNAVAILABLE
    UnauthenticatedError      UNAUTHENTICATED
    ForbiddenError            PERMISSION_DENIED
    ChangeRefusedError        FAILED_PRECONDITION
    IncapableModelError       FAILED_PRECONDITION
    DisabledError             UNIMPLEMENTED
    MemoryError               RESOURCE_EXHAUSTED, reason MEMORY_SHORT: the machine's fault, and gone in a moment
    anything else             INTERNAL, with a fixed text and the id under which the log has the traceback

The codes are gRPC's, by name; HTTP has a table of its own from these (``server.web.problems``). Neither the text of an
unexpected exception nor an image reaches a caller; the log gets tracebacks, but never an image.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from server.errors import (
    BudgetExceededError,
    ChangeRefusedError,
    DisabledError,
    ForbiddenError,
    ImageError,
    IncapableModelError,
    IntegrityError,
    ModelNotFoundError,
    OverloadedError,
    RequestError,
    StrokeError,
    UnauthenticatedError,
    UnavailableError,
    short_of_memory,
)

logger = logging.getLogger(__name__)

MEMORY_RETRY_SECONDS = 1.0
"""Hint to those whose image found no memory: it takes longer to come back than room for a message."""

STATUS_CODES: dict[type[StrokeError], str] = {
    ImageError: "INVALID_ARGUMENT",
    RequestError: "INVALID_ARGUMENT",
    IntegrityError: "DATA_LOSS",
    ModelNotFoundError: "NOT_FOUND",
    OverloadedError: "RESOURCE_EXHAUSTED",
    BudgetExceededError: "DEADLINE_EXCEEDED",
    UnavailableError: "UNAVAILABLE",
    UnauthenticatedError: "UNAUTHENTICATED",
    ForbiddenError: "PERMISSION_DENIED",
    ChangeRefusedError: "FAILED_PRECONDITION",
    IncapableModelError: "FAILED_PRECONDITION",
    DisabledError: "UNIMPLEMENTED",
}


@dataclass(frozen=True)
class Status:
    """What a caller learns of an error."""

    code: str
    """gRPC's name of it."""

    reason: str
    message: str
    retry_after_ms: int = 0
    """0: the same call will not succeed later either."""


def to_status(error: Exception, request_id: str) -> Status:
    """Translates an error for the caller; logs the traceback of one that is ours under ``request_id``."""
    code = STATUS_CODES.get(type(error)) if isinstance(error, StrokeError) else None
    if code is not None and isinstance(error, StrokeError):
        return Status(code, error.reason, error.message, round(1000 * (error.retry_after or 0)))
    if isinstance(error, MemoryError):
        logger.error("memory is short id=%s", request_id, exc_info=error)
        return to_status(short_of_memory(MEMORY_RETRY_SECONDS), request_id)
    logger.error("internal error id=%s", request_id, exc_info=error)
    return Status("INTERNAL", "INTERNAL", f"Internal error of the server (id {request_id}).")
