"""A port with one page: ``GET /metrics``. Whatever is sent to it, it costs little memory and ends soon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

PATH = "/metrics"
CONNECTIONS = 8
"""At the same time; more are closed at once."""

SECONDS = 5.0
"""How long a connection lasts, from first to last byte."""

MOST_REQUEST_BYTES = 8192
"""Of a request with its headers."""

FRESH_SECONDS = 0.1
"""How long a page is given out again, so that many readers cost no more than one."""


class MetricsPort:
    """Serves a page to Prometheus, one request a connection. For one event loop."""

    def __init__(self, render: Callable[[], bytes], content_type: str) -> None:
        """Listens nowhere yet.

        Args:
            render: makes the page; called in a thread.
            content_type: its type.
        """
        self._render = render
        self._content_type = content_type
        self._open = 0
        self._page, self._made = b"", float("-inf")
        self._making = asyncio.Lock()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> str:
        """Begins to serve; returns the address.

        Raises:
            OSError: it cannot be listened there.
        """
        self._server = await asyncio.start_server(
            self._serve, host, port, limit=MOST_REQUEST_BYTES, backlog=CONNECTIONS
        )
        name, number = self._server.sockets[0].getsockname()[:2]
        return f"http://[{name}]:{number}{PATH}" if ":" in name else f"http://{name}:{number}{PATH}"

    def close(self) -> None:
        """Ends listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS:
                async with asyncio.timeout(SECONDS):
                    writer.write(await self._answer(reader))
                    await writer.drain()
                    writer.write_eof()
                    while await reader.read(MOST_REQUEST_BYTES):  # until the reader has it all, and closes
                        pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        except Exception as error:
            logger.warning("the metrics could not be shown (%s)", type(error).__name__)
        finally:
            self._open -= 1
            writer.transport.abort()  # what was to be sent has been, and nobody is waited for

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return make_response("431 Request Header Fields Too Large")
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return make_response("400 Bad Request")
        if words[0] != b"GET":
            return make_response("405 Method Not Allowed", extra="Allow: GET\r\n")
        if words[1].partition(b"?")[0] != PATH.encode():
            return make_response("404 Not Found")
        return make_response("200 OK", await self._make_page(), f"Content-Type: {self._content_type}\r\n")

    async def _make_page(self) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._making:
            if loop.time() - self._made > FRESH_SECONDS:
                self._page = await loop.run_in_executor(None, self._render)
                self._made = loop.time()
            return self._page


def make_response(status: str, body: bytes = b"", extra: str = "") -> bytes:
    """A whole response, after which the connection ends."""
    head = f"HTTP/1.1 {status}\r\n{extra}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode("ascii") + body
