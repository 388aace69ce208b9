"""Where calls begin and end: errors become gRPC status codes, requests become log lines. The only caller of
``context.abort``.

    ImageError, RequestError  INVALID_ARGUMENT
    IntegrityError            DATA_LOSS
    ModelNotFoundError        NOT_FOUND
    OverloadedError           RESOURCE_EXHAUSTED
    BudgetExceededError       DEADLINE_EXCEEDED
    UnavailableError          UNAVAILABLE
    MemoryError               RESOURCE_EXHAUSTED, reason MEMORY_SHORT: the machine's fault, and gone in a moment
    anything else             INTERNAL, with a fixed text and the id under which the log has the traceback

The reason goes into the trailing metadata ``stroke-reason``. Where the same call may succeed later, it stands beside it
when: ``grpc-retry-pushback-ms``, which gRPC's own clients obey (gRFC A6). Neither the text of an unexpected exception
nor an image reaches a caller; the log gets tracebacks, but never an image.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from server.api.admission import FairPlaces, Held, Inbox, short_of_memory
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
RETRY_KEY = "grpc-retry-pushback-ms"
MEMORY_RETRY_SECONDS = 1.0
"""Hint to those whose image found no memory: it takes longer to come back than room for a message."""

MESSAGE_SECONDS = 30.0
"""A call whose message has not come by then is ended."""

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
    return Status(grpc.StatusCode.INTERNAL, "INTERNAL", f"Internal error of the server (id {request_id}).")


class Call:
    """One call, from its arrival to its end.

    Attributes:
        context: of gRPC.
        peer: its connection.
        started: its arrival, in seconds of ``time.monotonic``.
        request_id: printable; what the caller calls it, otherwise one that was made here.
        is_wanted: False once the caller has gone: then no work is started for it.
    """

    def __init__(self, context: Any, inbox: Inbox) -> None:
        self.context = context
        self.peer: str = context.peer()
        self.started = time.monotonic()
        self.request_id = ""
        self.is_wanted = True
        self._inbox = inbox
        self._reading: asyncio.Task[Any] | None = None

    @property
    def seconds_left(self) -> float:
        """Until the caller's deadline; infinite without one. It follows the wall clock: to be asked once, early."""
        remaining = self.context.time_remaining()
        return float("inf") if remaining is None else float(remaining)

    def take_message(self, seconds: float = MESSAGE_SECONDS) -> AbstractAsyncContextManager[Held]:
        """The only message of a call, held until the end of the block. Raises as ``Inbox.take``."""
        return self._inbox.take(self, seconds)

    async def receive(self) -> Held | None:
        """The next message of a stream, to be released; None at its end. Raises as ``Inbox.take``."""
        return await self._inbox.receive(self, None)

    async def read(self) -> bytes | None:
        """The next message as it comes, for ``Inbox``; None at their end."""
        # gRPC's read does not survive being cancelled: a message that is complete by then is never freed. So it goes on
        # by itself until the call ends. The iterator that gRPC hands to handlers keeps the last message, too.
        self._reading = asyncio.ensure_future(self.context.read())
        try:
            message = await asyncio.shield(self._reading)
        finally:
            self._reading = None  # it holds what it has read
        return None if message is grpc.aio.EOF else message

    def let_go(self) -> None:
        """Ends a call whose caller takes nothing: a status would have to wait behind what was sent. The handler must
        end with a CancelledError; once nobody refers to the call any more, gRPC cancels it."""
        if self._reading is not None:
            self._reading.cancel()

    def name_itself(self, request_id: str) -> str:
        """Takes the caller's id, or makes one, and returns it: answer and log have the same."""
        self.request_id = printable_id(request_id) or new_id()
        return self.request_id


Behaviour: TypeAlias = Callable[[Call], Awaitable[bytes | Status | None]]
"""Serves a call: returns the encoded answer or what went wrong, or sends answers itself and returns None."""


class CallBoundary:
    """Wraps every method: a place for the call, errors to codes, and a log line.

    Attributes:
        last_arrival: when the last call arrived, in seconds of ``time.monotonic``.
        in_flight: calls that have not ended.
    """

    def __init__(self, inbox: Inbox, places: FairPlaces) -> None:
        self._inbox = inbox
        self._places = places
        self.last_arrival = 0.0
        self.in_flight = 0

    def wrap(self, name: str, behaviour: Behaviour) -> Callable[[Any, Any], Awaitable[bytes | None]]:
        """The handler that gRPC calls for a method of the given name."""

        async def handle(messages: object, context: Any) -> bytes | None:
            call = Call(context, self._inbox)
            self.last_arrival = call.started
            self.in_flight += 1
            status = None
            try:
                with self._places.take(call.peer):
                    outcome = await behaviour(call)
                if not isinstance(outcome, Status):
                    return outcome
                status = outcome
            except asyncio.CancelledError:  # the caller has gone, its deadline has passed, or the server stops at once
                call.is_wanted = False
                raise
            except Exception as error:
                status = to_status(error, call.request_id or call.name_itself(""))
            finally:
                self.in_flight -= 1
                log_outcome(
                    name, call.request_id or call.name_itself(""), status, call.started, is_wanted=call.is_wanted
                )
                call.is_wanted = False
            metadata = [(REASON_KEY, status.reason)]
            if status.retry_after_ms:
                metadata.append((RETRY_KEY, str(status.retry_after_ms)))
            await context.abort(status.code, status.message, tuple(metadata))
            raise AssertionError("abort raises")

        return handle


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


def new_id() -> str:
    """An id for a request that came without one."""
    return uuid.uuid4().hex


def printable_id(request_id: str) -> str:
    """The id when it can be answered and logged, otherwise nothing."""
    return request_id if len(request_id) <= 128 and request_id.isascii() and request_id.isprintable() else ""
