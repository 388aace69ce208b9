"""Where calls of all transports begin and end: they pass the gate and get a place, errors become what callers learn of
them, outcomes are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from server.admission.call import ANYBODY, Call
from server.admission.places import PLACE_SECONDS, FairPlaces
from server.admission.status import Status, to_status
from server.core.outcomes import Journal, Outcome
from server.errors import OverloadedError, UnavailableError

if TYPE_CHECKING:  # loaded by those who have one
    from server.security.gate import Gate

AWAY_SECONDS = 1.0
"""Hint to those who meet a server that stops."""

SomeCall = TypeVar("SomeCall", bound=Call)
Answer = TypeVar("Answer")

Behaviour: TypeAlias = Callable[[SomeCall], Awaitable[Answer | Status]]
"""Serves a call: returns the answer or what went wrong."""


class Boundary:
    """Goes around every call. For one event loop.

    Attributes:
        last_arrival: when the last call arrived, in seconds of ``time.monotonic``.
        in_flight: calls that have not ended.
    """

    def __init__(self, places: int, journal: Journal, gate: Gate | None = None) -> None:
        """Has all places free.

        Args:
            places: calls that may be open at the same time, of all transports together.
            journal: is told what has come of each.
            gate: None: nobody is asked who they are.
        """
        self._gate = gate
        self._places = FairPlaces(places, too_many_calls)
        self._journal = journal
        self.last_arrival = 0.0
        self.in_flight = 0

    @property
    def free_places(self) -> int:
        """Calls that may still be opened."""
        return self._places.free

    async def run(self, call: SomeCall, behaviour: Behaviour[SomeCall, Answer]) -> Answer | Status:
        """Serves a call; raises nothing but CancelledError: the caller has gone, its deadline has passed, or the server
        stops at once."""
        self.last_arrival = call.started
        self.in_flight += 1
        status = None
        try:
            if self._gate is not None and call.method.role != ANYBODY:
                call.enter(self._gate)
            with self._places.take(call.source):
                outcome = await behaviour(call)
            if isinstance(outcome, Status):
                status = outcome
            return outcome
        except asyncio.CancelledError:
            call.is_wanted = False
            raise
        except Exception as error:
            status = to_status(error, call.request_id or call.name_itself(""))
            return status
        finally:
            self.in_flight -= 1
            if call.permit is not None:
                call.permit.leave()
            if not call.method.is_check:
                self._journal.note(
                    Outcome(
                        method=call.method.name,
                        request_id=call.request_id or call.name_itself(""),
                        caller=call.caller,
                        code=name_code(status, call),
                        reason=status.reason if status else "",
                        started=call.started,
                        is_call=True,
                        is_image=call.method.images == 1,
                        detection=call.detection,
                        image_sha256=call.image_sha256,
                        study=call.study,
                        trace=call.trace,
                    )
                )
            call.is_wanted = False


def stopping_server() -> UnavailableError:
    return UnavailableError(
        "SERVER_STOPPING", "The server is stopping: send the rest again elsewhere.", retry_after=AWAY_SECONDS
    )


def too_many_calls() -> OverloadedError:
    return OverloadedError("TOO_MANY_CALLS", "As many calls are open as the server accepts.", retry_after=PLACE_SECONDS)


def name_code(status: Status | None, call: Call) -> str:
    """gRPC's name of how a call, or an image of it, ended; ``status`` is None for success."""
    return status.code if status else "OK" if call.is_wanted else "CANCELLED"
