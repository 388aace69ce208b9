"""gRPC's server reflection: what services and messages there are, for tools that have no stubs (``grpcurl``).

The library's servicer answers; reading, bounds and the gate are those of all streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from server.admission.call import READ, Method
from server.admission.places import StreamPlaces
from server.api.rpc.boundary import RpcBoundary
from server.api.rpc.call import RpcCall, parse
from server.api.rpc.stream import Stream, StreamForm
from server.errors import malformed_request

SERVICE_NAMES = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
"""Two versions with the same messages: tools ask for the newer one and then for the older one, or know but one."""

METHOD = Method("ServerReflectionInfo", READ)

MOST_BYTES = 4096
"""Of a message: the name of a symbol or file."""

IDLE_SECONDS = 10.0
"""An exchange ends when nothing comes for so long."""


class Reflection:
    """Answers what is asked of the services with the given names, in the places that streams of images leave free."""

    def __init__(self, services: Sequence[str], streams: StreamPlaces) -> None:
        self._answers = aio.ReflectionServicer([*services, SERVICE_NAMES[0]])
        self._streams = streams

    def make_handlers(self, boundary: RpcBoundary) -> tuple[grpc.GenericRpcHandler, ...]:
        """What gRPC needs to know."""
        return tuple(boundary.make_handlers(name, {}, {METHOD: self._serve}) for name in SERVICE_NAMES)

    async def _serve(self, call: RpcCall) -> None:
        stream = Stream(
            call,
            FORM,
            lambda request: asyncio.ensure_future(self._answer(request)),
            window=1,
            window_bytes=MOST_BYTES,
            idle_seconds=IDLE_SECONDS,
            most_bytes=MOST_BYTES,
        )
        await self._streams.run(stream)

    async def _answer(self, request: Any) -> bytes:
        async def once() -> AsyncIterator[Any]:
            yield request

        async for answer in self._answers.ServerReflectionInfo(once(), None):
            encoded: bytes = answer.SerializeToString()
        return encoded


def read_question(data: bytes) -> list[Any]:
    """What a message asks."""
    if len(data) > MOST_BYTES:
        raise malformed_request()
    return [parse(reflection_pb2.ServerReflectionRequest, data)]


FORM: StreamForm[Any, bytes] = StreamForm(
    read_question,
    lambda answers: answers[0],
    lambda answer: False,  # so that it gives its place to a stream of images that has none
    lambda request: 0,
)
"""One question and one answer a message."""
