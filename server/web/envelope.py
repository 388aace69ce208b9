"""What goes around every request and every answer, whatever is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias

from server.admission.ids import new_id
from server.admission.status import Status
from server.web.problems import make_problem

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

DISCARD_SECONDS = 1.0
VERSIONS = ("1.0", "1.1")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Of every answer that says nothing else: it is nobody's but the caller's, and nothing of it is kept."""

CLOSE = (b"connection", b"close")


class Body:
    """What comes of a request after its head.

    Attributes:
        is_complete: whether all of it has been read, or its sender has gone.
    """

    def __init__(self, receive: Receive, headers: Headers) -> None:
        self.is_complete = False
        self._receive = receive
        # Sent only by those who are asked for it, which ``receive`` does.
        self._is_held_back = (b"expect", b"100-continue") in [(key, value.lower()) for key, value in headers]

    async def receive(self) -> Message:
        """The next message of ASGI."""
        self._is_held_back = False
        message = await self._receive()
        if not message.get("more_body"):
            self.is_complete = True
        return message

    async def discard(self, most_bytes: int) -> None:
        """Reads what is left and nobody wants, up to a bound and for a moment: a caller that is answered while it still
        sends may see nothing but a connection that was reset."""
        if self.is_complete or self._is_held_back:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self.is_complete and most_bytes > 0:
                    most_bytes -= len((await self.receive()).get("body", b""))


class Envelope:
    """An application of ASGI around another one."""

    def __init__(self, app: App, most_bytes: int) -> None:
        """Goes around ``app``.

        Args:
            app: the application.
            most_bytes: of a body.
        """
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serves a request."""
        body = Body(receive, scope["headers"])
        status = find_fault(scope["http_version"], scope["headers"])

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.discard(self._most_bytes)
                headers: Headers = list(message["headers"])
                there = {key for key, _ in headers}
                headers += [header for header in HEADERS if header[0] not in there]
                # What is left of the body would be taken for the next request.
                message["headers"] = headers if body.is_complete and status is None else [*headers, CLOSE]
            await send(message)

        if status is not None:
            await make_problem(status, new_id())(scope, body.receive, answer)
        else:
            scope["path"] = find_path(scope["path"])
            await self._app(scope, body.receive, answer)


def find_fault(version: str, headers: Headers) -> Status | None:
    """What is wrong with the head of a request that h11 has passed; None: nothing."""
    names = {key for key, _ in headers}
    if version not in VERSIONS:
        sentence = "This is the port of HTTP/1.1; gRPC has another one."
        return Status("INVALID_ARGUMENT", "HTTP_VERSION_UNSUPPORTED", sentence)
    if b"transfer-encoding" in names and (b"content-length" in names or version == "1.0"):
        # Somebody on the way may read it the other way round, and see two requests where we see one.
        sentence = "A request has a Content-Length, or comes in chunks of HTTP/1.1, and not both."
        return Status("INVALID_ARGUMENT", "REQUEST_MALFORMED", sentence)
    return None


def find_path(target: str) -> str:
    """The path of a request that may name the server as well (RFC 9112, 3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return f"/{rest.partition('/')[2]}"
    return target
