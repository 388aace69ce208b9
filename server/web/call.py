"""A call of HTTP: what its headers say, and its body, which is read into memory within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from server.admission.call import Call, Method
from server.admission.ids import find_trace
from server.admission.inbox import Inbox
from server.errors import RequestError, StrokeError
from server.security.clients import read_token
from server.web.connection import NAMES


class HttpCall(Call):
    """One request of HTTP.

    Attributes:
        request: of Starlette, whose body is read here and nowhere else.
        is_read: set once the body is complete.
    """

    def __init__(self, request: Request, method: Method, inbox: Inbox, most_bytes: int) -> None:
        """Reads nothing yet.

        Args:
            request: of Starlette.
            method: what is called.
            inbox: takes the body.
            most_bytes: of the body.
        """
        client = request.client
        super().__init__(name_peer(client.host, client.port) if client else "unix:", method, inbox)
        self.request = request
        self.is_read = asyncio.Event()
        self._most_bytes = most_bytes
        if request_id := request.query_params.get("id"):
            self.name_itself(request_id)

    @property
    def names(self) -> tuple[str, ...]:
        """See ``Call``."""
        found: tuple[str, ...] = self.request.scope.get(NAMES, ())
        return found

    @property
    def token(self) -> str | None:
        """See ``Call``."""
        return read_token(self.request.headers.items())

    @property
    def seconds_left(self) -> float:
        """See ``Call``. HTTP has no deadlines: callers who give up close the connection."""
        return float("inf")

    def find_trace(self) -> str:
        """See ``Call``."""
        return find_trace(self.request.headers.items())

    def check_length(self) -> None:
        """Refuses a body whose length is known and too large, before any of it is read.

        Raises:
            StrokeError: reason MESSAGE_TOO_LARGE, or another one for methods with another bound.
        """
        length = self.request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most_bytes:
            raise self._too_large()

    async def read(self, note_size: Callable[[int], None]) -> bytes | None:
        """See ``Call``. The server's buffer holds little, so what is put together here is what has arrived.

        Raises:
            RequestError: reason MESSAGE_TOO_LARGE.
            CancelledError: the caller has gone.
        """
        self.check_length()
        body, message = bytearray(), await self._receive()
        if not message.get("more_body"):
            self.is_read.set()
            return bytes(message.get("body", b""))
        while True:
            body += message.get("body", b"")
            if len(body) > self._most_bytes:
                raise self._too_large()
            note_size(len(body))
            if not message.get("more_body"):
                self.is_read.set()
                return bytes(body)
            message = await self._receive()

    async def wait_until_gone(self) -> None:
        """Waits until the caller closes the connection, of a request that has been read."""
        await self.is_read.wait()
        while (await self.request.receive())["type"] != "http.disconnect":
            pass

    async def _receive(self) -> Any:
        message = await self.request.receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError("the caller has gone")
        return message

    def _too_large(self) -> StrokeError:
        return RequestError(
            "MESSAGE_TOO_LARGE", f"The body of a request has at most {self._most_bytes:,} bytes: send less at a time."
        )


def name_peer(host: str, port: int) -> str:
    """The connection as gRPC would name it."""
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
