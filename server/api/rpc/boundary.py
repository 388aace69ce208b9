"""gRPC's side of ``server.admission.boundary``: handlers for gRPC, and statuses as gRPC sends them.

The reason goes into the trailing metadata ``stroke-reason``. Where the same call may succeed later, it stands beside it
when: ``grpc-retry-pushback-ms``, which gRPC's own clients obey (gRFC A6). Nobody else calls ``context.abort`` but
``RpcCall.let_go`` and, for a name that it does not know, health.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc

from server.admission.boundary import Boundary
from server.admission.call import Method
from server.admission.inbox import Inbox
from server.admission.status import Status
from server.api.rpc.call import RpcCall

REASON_KEY = "stroke-reason"
RETRY_KEY = "grpc-retry-pushback-ms"

RpcBehaviour: TypeAlias = Callable[[RpcCall], Awaitable[bytes | Status | None]]
"""Serves a call: returns the encoded answer or what went wrong, or sends answers itself and returns None."""


class RpcBoundary:
    """Wraps methods of gRPC's services."""

    def __init__(self, boundary: Boundary, inbox: Inbox) -> None:
        self._boundary = boundary
        self._inbox = inbox

    def make_handlers(
        self, service: str, unary: Mapping[Method, RpcBehaviour], streams: Mapping[Method, RpcBehaviour]
    ) -> grpc.GenericRpcHandler:
        """What gRPC needs to know of a service. All methods take streams of messages: so a message is taken in only
        when its call has a place, and a call whose message does not come costs no thread.

        Args:
            service: its full name.
            unary: methods with one answer.
            streams: methods with any number of them, which they send themselves.
        """
        handlers = {
            method.name: grpc.stream_unary_rpc_method_handler(self._wrap(method, behaviour))
            for method, behaviour in unary.items()
        } | {
            method.name: grpc.stream_stream_rpc_method_handler(self._wrap(method, behaviour))
            for method, behaviour in streams.items()
        }
        return grpc.method_handlers_generic_handler(service, handlers)

    def _wrap(self, method: Method, behaviour: RpcBehaviour) -> Callable[[Any, Any], Awaitable[bytes | None]]:
        """The handler that gRPC calls."""

        async def handle(messages: object, context: Any) -> bytes | None:
            outcome = await self._boundary.run(RpcCall(context, method, self._inbox), behaviour)
            if isinstance(outcome, Status):
                await abort(context, outcome)
            return outcome

        return handle


async def abort(context: Any, status: Status) -> NoReturn:
    """Ends a call with a status."""
    metadata = [(REASON_KEY, status.reason)]
    if status.retry_after_ms:
        metadata.append((RETRY_KEY, str(status.retry_after_ms)))
    await context.abort(grpc.StatusCode[status.code], status.message, tuple(metadata))
    raise AssertionError("abort raises")
