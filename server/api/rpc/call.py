"""A call of gRPC, and what its messages say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from server.admission.call import Call, Method
from server.admission.ids import find_trace
from server.admission.inbox import Inbox, inflate
from server.errors import malformed_request
from server.security.clients import read_token
from server.security.identity import read_names


class RpcCall(Call):
    """One call of gRPC.

    Attributes:
        context: of gRPC.
    """

    def __init__(self, context: Any, method: Method, inbox: Inbox) -> None:
        super().__init__(context.peer(), method, inbox)
        self.context = context
        self._reading: asyncio.Task[None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """See ``Call``."""
        return read_names(self.context.auth_context())

    @property
    def token(self) -> str | None:
        """See ``Call``."""
        return read_token(self.context.invocation_metadata())

    def find_trace(self) -> str:
        """See ``Call``."""
        return find_trace(self.context.invocation_metadata())

    @property
    def seconds_left(self) -> float:
        """See ``Call``. It follows the wall clock."""
        remaining = self.context.time_remaining()
        return float("inf") if remaining is None else float(remaining)

    async def read(self, note_size: Callable[[int], None]) -> bytes | None:
        """See ``Call``. gRPC puts messages together by itself and tells nobody how far it is."""
        # gRPC's read does not survive being cancelled: a message that is complete by then is never freed. So it goes on
        # by itself until the call ends. The iterator that gRPC hands to handlers keeps the last message, too.
        arrived = asyncio.get_running_loop().create_future()
        self._reading = asyncio.ensure_future(self._read_into(arrived))
        try:
            message = await arrived
        finally:
            self._reading = None
        return None if message is grpc.aio.EOF else message

    async def _read_into(self, arrived: asyncio.Future[Any]) -> None:
        """Reads a message for whoever waits for ``arrived``, if somebody still does."""
        try:
            message = await self.context.read()
        except BaseException as error:
            if not arrived.done():
                arrived.set_exception(error)
        else:
            if not arrived.done():
                arrived.set_result(message)

    def let_go(self) -> None:
        """Ends a call whose caller takes nothing, by CANCELLED. Nobody waits for the status, which stands behind what
        was sent: the caller learns it when it reads on. The handler must end with a CancelledError."""
        if self._reading is not None:
            self._reading.cancel()
        ending = asyncio.ensure_future(self.context.abort(grpc.StatusCode.CANCELLED, "The answers were not taken."))
        ending.add_done_callback(lambda task: task.cancelled() or task.exception())  # abort raises


def parse(kind: Any, data: bytes | memoryview) -> Any:
    """Returns a message of the class ``kind``.

    Raises:
        RequestError: reason REQUEST_MALFORMED.
    """
    try:
        return kind.FromString(data)
    except (DecodeError, ValueError):
        raise malformed_request() from None


def read_message(kind: Any, most_bytes: int, data: bytes) -> Any:
    """``inflate``, since gRPC hands compressed messages over as they came (it would inflate without a bound), and
    ``parse``. Raises as both."""
    return parse(kind, inflate(data, most_bytes))
