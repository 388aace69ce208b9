"""Where errors become gRPC status codes and requests become log lines. The only caller of ``context.abort``.

    ImageError, RequestError  INVALID_ARGUMENT
    IntegrityError            DATA_LOSS
    ModelNotFoundError        NOT_FOUND
    OverloadedError           RESOURCE_EXHAUSTED
    BudgetExceededError       DEADLINE_EXCEEDED
    UnavailableError          UNAVAILABLE
    MemoryError               RESOURCE_EXHAUSTED, reason MEMORY_SHORT: the machine's fault, and gone in a moment
    anything else             INTERNAL, with a fixed text and the id under which the log has the traceback

The reason goes into the trailing metadata ``stroke-reason``. Neither the text of an unexpected exception nor an image
reaches a caller; the log gets tracebacks, but never an image.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from server.errors import (
    BudgetExceededError,
    ImageError,
    IntegrityError,
    ModelNotFoundError,
    OverloadedError,
    RequestError,
    StrokeError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

REASON_KEY = "stroke-reason"
STATUS_CODES: dict[type[StrokeError], grpc.StatusCode] = {
    ImageError: grpc.StatusCode.INVALID_ARGUMENT,
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    IntegrityError: grpc.StatusCode.DATA_LOSS,
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BudgetExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True)
class Status:
    """What a caller learns of an error."""

    code: grpc.StatusCode
    reason: str
    message: str


def to_status(error: Exception, request_id: str) -> Status:
    """Translates an error for the caller; logs the traceback of one that is ours under ``request_id``."""
    code = STATUS_CODES.get(type(error)) if isinstance(error, StrokeError) else None
    if code is not None and isinstance(error, StrokeError):
        return Status(code, error.reason, error.message)
    if isinstance(error, MemoryError):
        logger.error("memory is short id=%s", request_id, exc_info=error)
        return to_status(memory_short(), request_id)
    logger.error("internal error id=%s", request_id, exc_info=error)
    return Status(grpc.StatusCode.INTERNAL, "INTERNAL", f"Internal error of the server (id {request_id}).")


def memory_short() -> OverloadedError:
    return OverloadedError(
        "MEMORY_SHORT",
        "The server is short of memory; nothing is wrong with the request. Send it again later, fewer at a time.",
    )


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Wraps every method below ``prefix``: errors to codes, and a log line a call.

    Attributes:
        last_arrival: when the last call reached its handler, in seconds of ``time.monotonic``.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.last_arrival = 0.0

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """See ``grpc.ServerInterceptor``. Runs on gRPC's one polling thread, so it only wraps."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self._prefix):
            return handler
        name = method.rpartition("/")[2]
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._wrap_unary(handler.unary_unary, name),
                read_leniently(handler.request_deserializer),
                handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            self._wrap_stream(handler.stream_stream, name),
            read_leniently(handler.request_deserializer),
            handler.response_serializer,
        )

    def _wrap_unary(self, behaviour: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            self.last_arrival = time.monotonic()
            with Call(name, getattr(request, "id", ""), context):
                check_request(request)
                return behaviour(request, context)

        return call

    def _wrap_stream(self, behaviour: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Iterator[Any]]:
        def call(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self.last_arrival = time.monotonic()
            with Call(name, "", context):
                yield from behaviour(requests, context)

        return call


class Call:
    """One call from its handler's start to its end, as a context manager."""

    def __init__(self, name: str, request_id: str, context: grpc.ServicerContext) -> None:
        self._name = name
        self._request_id = request_id
        self._context = context
        self._started = time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        request_id = printable_id(self._request_id) or uuid.uuid4().hex
        status = to_status(error, request_id) if isinstance(error, Exception) else None
        log_outcome(self._name, request_id, status, self._started, is_wanted=self._context.is_active())
        if status is not None:
            self._context.set_trailing_metadata(((REASON_KEY, status.reason),))
            self._context.abort(status.code, status.message)


def log_outcome(name: str, request_id: str, status: Status | None, started: float, *, is_wanted: bool) -> None:
    """Writes the one line of a request.

    Args:
        name: method, or part of one.
        request_id: printable.
        status: None for success.
        started: in seconds of ``time.monotonic``.
        is_wanted: False when the caller has gone and nobody reads the answer.
    """
    code = status.code.name if status else "OK" if is_wanted else "CANCELLED"
    reason = f" reason={status.reason}" if status else ""
    logger.info("%s id=%s code=%s%s ms=%.1f", name, request_id, code, reason, 1000 * (time.monotonic() - started))


MALFORMED = object()
"""Stands for a message that is not one of this API."""


def read_leniently(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Wraps a deserialiser so that garbage reaches our own error table instead of gRPC's INTERNAL."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception:
            return MALFORMED

    return read


def check_request(request: Any) -> None:
    """Refuses what ``read_leniently`` could not read."""
    if request is MALFORMED:
        raise RequestError("REQUEST_MALFORMED", "The message is not one of stroke.v1: check the caller's stubs.")


def printable_id(request_id: str) -> str:
    """The id when it can stand in a log line, otherwise nothing."""
    return request_id if len(request_id) <= 128 and request_id.isascii() and request_id.isprintable() else ""
