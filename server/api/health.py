"""``grpc.health.v1``: NOT_SERVING until told otherwise, and watches that hold nothing but their own place.

The library's servicer is not used: it holds a lock while it sends, keeps every name that was ever watched, and shares
its threads between the servers of a process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2

from server.admission.call import ANYBODY, KNOWN, Method
from server.admission.inbox import Inbox
from server.admission.places import PLACE_SECONDS, FairPlaces
from server.admission.status import to_status
from server.api.rpc.boundary import abort
from server.api.rpc.call import RpcCall, read_message
from server.errors import OverloadedError, StrokeError, malformed_request

if TYPE_CHECKING:
    from server.security.gate import Gate

HEALTH_SERVICE = "grpc.health.v1.Health"
NO_ALARMS: Mapping[str, Callable[[], bool]] = MappingProxyType({})
STATUS = health_pb2.HealthCheckResponse
MESSAGE_SECONDS = 5.0
"""A check whose message has not come by then is ended."""

MOST_BYTES = 1024
"""Of a message: the name of a service."""

PLACES = 512
"""Checks and watches that are open at the same time."""


class Health:
    """Health of the server ("") and of one service. Neither checks nor watches wait for anything but their message."""

    def __init__(self, service: str, inbox: Inbox) -> None:
        self._names = ("", service)
        self._inbox = inbox
        self._places = FairPlaces(PLACES, too_many_checks)
        self._status = STATUS.NOT_SERVING
        self._is_final = False
        self._changed = asyncio.Event()

    def make_handlers(
        self, gate: Gate | None = None, alarms: Mapping[str, Callable[[], bool]] = NO_ALARMS
    ) -> grpc.GenericRpcHandler:
        """What gRPC needs to know.

        Args:
            gate: those may ask whom it knows; None: everybody.
            alarms: what tells whether a part of the server needs a person, by the name under which it is checked:
                then the answer is NOT_SERVING. The server's own status does not depend on them, for images are
                judged all the same. Looked up at each check, so they may be added later.
        """
        return grpc.method_handlers_generic_handler(
            HEALTH_SERVICE,
            {
                "Check": grpc.stream_unary_rpc_method_handler(partial(self._check, gate=gate, alarms=alarms)),
                "Watch": grpc.stream_stream_rpc_method_handler(partial(self._watch, gate=gate)),
            },
        )

    @property
    def is_serving(self) -> bool:
        """Whether the answer is SERVING."""
        return bool(self._status == STATUS.SERVING)

    def set_serving(self) -> None:
        """From now on the answer is SERVING; those who watch are told."""
        self._change(STATUS.SERVING)

    def end(self) -> None:
        """Says NOT_SERVING for good, and ends every watch: one that is open would hold up the server's stop."""
        self._is_final = True
        self._change(STATUS.NOT_SERVING)

    def _change(self, status: int) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()

    def _begin(self, context: Any, gate: Gate | None) -> RpcCall:
        call = RpcCall(context, Method("Check", KNOWN if gate is not None else ANYBODY), self._inbox)
        if gate is not None:
            call.enter(gate)
        return call

    async def _check(
        self, messages: object, context: Any, *, gate: Gate | None, alarms: Mapping[str, Callable[[], bool]]
    ) -> bytes:
        try:
            call = self._begin(context, gate)
            with self._places.take(call.source):
                name = await read_name(call)
        except StrokeError as error:
            await refuse(context, error)
        status, alarm = self._status, alarms.get(name)
        if alarm is not None:
            status = STATUS.NOT_SERVING if alarm() else STATUS.SERVING
        elif name not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        answer: bytes = STATUS(status=status).SerializeToString()
        return answer

    async def _watch(self, messages: object, context: Any, gate: Gate | None = None) -> None:
        try:
            call = self._begin(context, gate)
            with self._places.take(call.source):
                is_known = await read_name(call) in self._names
                while True:
                    changed, is_final = self._changed, self._is_final  # of now: they may change during the write
                    status = self._status if is_known else STATUS.SERVICE_UNKNOWN
                    await context.write(STATUS(status=status).SerializeToString())
                    if is_final:
                        return
                    await changed.wait()
        except StrokeError as error:
            await refuse(context, error)


def too_many_checks() -> OverloadedError:
    return OverloadedError(
        "TOO_MANY_CHECKS", "As many health checks are open as the server accepts.", retry_after=PLACE_SECONDS
    )


async def read_name(call: RpcCall) -> str:
    """The service that a caller asks for."""
    async with call.take_message(MESSAGE_SECONDS, tiny=MOST_BYTES) as message:
        if len(message.data) > MOST_BYTES:
            raise malformed_request()
        return str(read_message(health_pb2.HealthCheckRequest, MOST_BYTES, message.data).service)


async def refuse(context: Any, error: StrokeError) -> None:
    """Ends a check or watch; nothing of it is logged, since anybody may ask, however often."""
    await abort(context, to_status(error, ""))
