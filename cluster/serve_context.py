"""A call of Ray Serve, as the handlers of ``server.api`` know calls of gRPC.

Ray Serve hands over the messages of a call, and takes back answers and a status. What it does not hand over is the
caller's deadline: an image waits as long as ``max_wait_seconds`` allows. And a stream that ends with an error tells its
code and its sentence, but not the reason beside it: Ray sends trailing metadata with answers alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

if TYPE_CHECKING:
    from ray.serve.grpc_util import RayServegRPCContext

ANSWERS = 1
"""Of a stream that may wait for Ray to take them: a caller that takes none is noticed."""


class CallAborted(Exception):  # noqa: N818  # no error: how a handler of gRPC ends with a status
    """The call has its status."""


class ServeContext:
    """What handlers use of gRPC's ``ServicerContext``.

    Attributes:
        answers: of a stream, as they are written; None is the last.
    """

    def __init__(self, call: RayServegRPCContext, messages: AsyncIterator[bytes]) -> None:
        """Begins a call.

        Args:
            call: what Ray knows of it; takes its status.
            messages: encoded, as they arrive.
        """
        self._call = call
        self._messages = messages
        self.answers: asyncio.Queue[bytes | None] = asyncio.Queue(ANSWERS)

    def peer(self) -> str:
        """See ``grpc.aio.ServicerContext``, as with all of these."""
        return str(self._call.peer())

    def auth_context(self) -> Any:
        """Empty: Ray's proxy speaks plain text."""
        return self._call.auth_context()

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """As the caller has sent it."""
        return list(self._call.invocation_metadata())

    def time_remaining(self) -> float | None:
        """Not known."""
        return None

    async def read(self) -> Any:
        """The next message, or ``grpc.aio.EOF``.

        Raises:
            CancelledError: the caller has gone, which Ray tells like an end.
        """
        try:
            return await anext(self._messages)
        except StopAsyncIteration:
            if getattr(self._messages, "is_cancelled", bool)():
                raise asyncio.CancelledError from None
            return grpc.aio.EOF

    async def write(self, message: bytes) -> None:
        """Sends an answer of a stream, once there is room."""
        await self.answers.put(message)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str]] = ()
    ) -> NoReturn:
        """Ends the call."""
        self._call.set_code(code)
        self._call.set_details(details)
        self._call.set_trailing_metadata(list(trailing_metadata))
        raise CallAborted


async def iterate_one(message: bytes) -> AsyncIterator[bytes]:
    """The only message of a call."""
    yield message
