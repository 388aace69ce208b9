"""Where calls begin and end: they pass the gate and get a place, errors become gRPC status codes, outcomes are told.
Nobody else calls ``context.abort`` but health checks, and ``Call.let_go``.

    ImageError, RequestError  INVALID_ARGUMENT
    IntegrityError            DATA_LOSS
    ModelNotFoundError        NOT_FOUND
    OverloadedError           RESOURCE_EXHAUSTED
    BudgetExceededError       DEADLINE_EXCEEDED
    UnavailableError          UNAVAILABLE
    UnauthenticatedError      UNAUTHENTICATED
    ForbiddenError            PERMISSION_DENIED
    MemoryError               RESOURCE_EXHAUSTED, reason MEMORY_SHORT: the machine's fault, and gone in a moment
    anything else             INTERNAL, with a fixed text and the id under which the log has the traceback

The reason goes into the trailing metadata ``stroke-reason``. Where the same call may succeed later, it stands beside it
when: ``grpc-retry-pushback-ms``, which gRPC's own clients obey (gRFC A6). Neither the text of an unexpected exception
nor an image reaches a caller; the log gets tracebacks, but never an image.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from server.api.calls import Call, Inbox, short_of_memory
from server.api.entrance import enter
from server.core.outcomes import Journal, Outcome
from server.errors import (
    BudgetExceededError,
    ForbiddenError,
    ImageError,
    IntegrityError,
    ModelNotFoundError,
    OverloadedError,
    RequestError,
    StrokeError,
    UnauthenticatedError,
    UnavailableError,
)

if TYPE_CHECKING:  # loaded by those who have one
    from server.security.gate import Gate

logger = logging.getLogger(__name__)

SINGLE_IMAGE = "Predict"
"""The method whose calls are of one image."""

REASON_KEY = "stroke-reason"
RETRY_KEY = "grpc-retry-pushback-ms"
PLACE_SECONDS = 0.25
"""Hint to those for whom there was no place: calls that are in work end sooner."""

MEMORY_RETRY_SECONDS = 1.0
"""Hint to those whose image found no memory: it takes longer to come back than room for a message."""

STATUS_CODES: dict[type[StrokeError], grpc.StatusCode] = {
    ImageError: grpc.StatusCode.INVALID_ARGUMENT,
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    IntegrityError: grpc.StatusCode.DATA_LOSS,
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BudgetExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
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


class FairPlaces:
    """A number of places, of which no source gets more than it leaves free for others. For one event loop.

    A source is a client where there is a gate, otherwise a connection. The rule of dynamic thresholds (Choudhury and
    Hahne 1998): the first source gets at most half of the places, the next half of the rest, and so on. So one that
    takes all it can get never takes the last one.
    """

    def __init__(self, places: int, refuse: Callable[[], OverloadedError]) -> None:
        """Has all places free.

        Args:
            places: in all, at least 1.
            refuse: makes the error for those who get none.
        """
        self._free = places
        self._refuse = refuse
        self._held: Counter[str] = Counter()

    @property
    def free(self) -> int:
        """Places that nobody holds."""
        return self._free

    @contextmanager
    def take(self, source: str) -> Iterator[None]:
        """Holds a place for ``source``.

        Raises:
            OverloadedError: there is none for it.
        """
        held = self._held[source]
        if not self._free or (held > 0 and held >= self._free):
            raise self._refuse()
        self._free -= 1
        self._held[source] += 1
        try:
            yield
        finally:
            self._free += 1
            self._held[source] -= 1
            if not self._held[source]:
                del self._held[source]


def too_many_calls() -> OverloadedError:
    return OverloadedError("TOO_MANY_CALLS", "As many calls are open as the server accepts.", retry_after=PLACE_SECONDS)


Behaviour: TypeAlias = Callable[[Call], Awaitable[bytes | Status | None]]
"""Serves a call: returns the encoded answer or what went wrong, or sends answers itself and returns None."""


class CallBoundary:
    """Wraps every method: a place for the call, errors to codes, and the outcome told.

    Attributes:
        last_arrival: when the last call arrived, in seconds of ``time.monotonic``.
        in_flight: calls that have not ended.
    """

    def __init__(self, inbox: Inbox, places: FairPlaces, journal: Journal, gate: Gate | None = None) -> None:
        self._inbox = inbox
        self._gate = gate
        self._places = places
        self._journal = journal
        self.last_arrival = 0.0
        self.in_flight = 0

    @property
    def free_places(self) -> int:
        """Calls that may still be opened."""
        return self._places.free

    def wrap(self, name: str, behaviour: Behaviour) -> Callable[[Any, Any], Awaitable[bytes | None]]:
        """The handler that gRPC calls for a method of the given name."""

        async def handle(messages: object, context: Any) -> bytes | None:
            call = Call(context, self._inbox, name)
            self.last_arrival = call.started
            self.in_flight += 1
            status = None
            try:
                if self._gate is not None:
                    enter(self._gate, call)
                with self._places.take(call.source):
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
                if call.permit is not None:
                    call.permit.leave()
                self._journal.note(
                    Outcome(
                        method=name,
                        request_id=call.request_id or call.name_itself(""),
                        caller=call.caller,
                        code=name_code(status, call),
                        reason=status.reason if status else "",
                        started=call.started,
                        is_call=True,
                        is_image=name == SINGLE_IMAGE,
                        detection=call.detection,
                        image_sha256=call.image_sha256,
                        trace=call.trace,
                    )
                )
                call.is_wanted = False
            metadata = [(REASON_KEY, status.reason)]
            if status.retry_after_ms:
                metadata.append((RETRY_KEY, str(status.retry_after_ms)))
            await context.abort(status.code, status.message, tuple(metadata))
            raise AssertionError("abort raises")

        return handle


def name_code(status: Status | None, call: Call) -> str:
    """gRPC's name of how a call, or an image of it, ended; ``status`` is None for success."""
    return status.code.name if status else "OK" if call.is_wanted else "CANCELLED"
