"""The port of HTTP: connections within bounds, each of which ends when nothing comes of it.

uvicorn parses and writes HTTP/1.1 by h11, which bounds a request's head. What it leaves open is bounded here: how many
connections there are, how long a head may take to come, and how long an answer may take to be taken.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from server.machine.addresses import ListenError, check_reach, describe_error, resolve_host
from server.security.identity import read_peer_certificate

NAMES = "stroke.names"
"""Key in the scope of a request: the names of the caller's verified certificate."""

FLAG = "--http"
CONNECTIONS = 128
"""At the same time. Another one takes the place of that on which nothing has been asked for longest; each costs up to
0.3 MB, which arrive before anybody has asked for them."""

BACKLOG = 128
IDLE_SECONDS = 30.0
"""How long a connection may be without a request whose head has come."""

WORK_SECONDS = 120.0
"""How long a request may take, from its head to the last byte of its answer: to arrive (30 s), to wait and be judged
(30 s), and to be taken; more where images may wait for longer."""

HANDSHAKE_SECONDS = 10.0
SWEEP_SECONDS = 1.0
MOST_HEAD_BYTES = 16 * 1024


class BoundedProtocol(H11Protocol):
    """One connection."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._since = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way: none whose head has come and whose answer has not been written."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def idle_since(self) -> float:
        """When it was made, or its last answer was complete, in seconds of ``time.monotonic``."""
        return self._since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a place, or that of another connection."""
        if len(self.connections) >= CONNECTIONS and not end_idlest(self.connections):
            transport.abort()
            return
        super().connection_made(transport)
        names = read_peer_certificate(transport.get_extra_info("peercert"))
        if names:
            app = self.app

            async def run(scope: Any, receive: Any, send: Any) -> None:
                scope[NAMES] = names
                await app(scope, receive, send)

            self.app = run

    def data_received(self, data: bytes) -> None:
        """Ignores what comes on a connection that got no place."""
        if self.transport is not None:
            was_idle = self.is_idle
            super().data_received(data)
            if was_idle and not self.is_idle:
                self._since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives its place free."""
        if self.transport is not None:
            super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begins to wait for another request."""
        self._since = time.monotonic()
        super().on_response_complete()

    def end_if_late(self, now: float, work_seconds: float) -> None:
        """Ends the connection when nothing comes of it any more."""
        if now - self._since > (IDLE_SECONDS if self.is_idle else work_seconds):
            self.transport.abort()


def end_idlest(connections: set[Any]) -> bool:
    """Ends the connection that has been idle for longest. Returns whether there was one."""
    idle = [connection for connection in connections if connection.is_idle]
    if not idle:
        return False
    idlest = min(idle, key=lambda connection: connection.idle_since)
    connections.discard(idlest)
    idlest.transport.abort()
    return True


class WebPort:
    """Serves an application of ASGI. For one event loop."""

    def __init__(self, app: Any, most_wait_seconds: float) -> None:
        """Listens nowhere yet.

        Args:
            app: the application.
            most_wait_seconds: how long an image may wait for its turn.
        """
        self._state = ServerState()
        self._config = Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=round(IDLE_SECONDS),
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        )
        # It would write a line for each request that it cannot parse: a log that callers can grow.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        self._config.load()
        self._work_seconds = WORK_SECONDS + most_wait_seconds
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, address: str, context: ssl.SSLContext | None, *, is_insecure: bool) -> str:
        """Begins to serve; returns the address as a URL.

        Args:
            address: HOST:PORT.
            context: of TLS; None: plain text.
            is_insecure: plain text may leave this machine.

        Raises:
            ListenError: it cannot be listened there.
        """
        listener = open_socket(address, is_protected=context is not None or is_insecure)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: BoundedProtocol(config=self._config, server_state=self._state, app_state={}, _loop=loop),
            sock=listener,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
            backlog=BACKLOG,
        )
        self._sweeper = asyncio.create_task(self._sweep())
        host, port = listener.getsockname()[:2]
        scheme = "https" if context else "http"
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"

    def close(self) -> None:
        """Ends listening, and each connection after the request that is under way on it."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._state.connections):
                connection.shutdown()

    def cut_off(self) -> None:
        """Ends all connections at once."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in list(self._state.connections):
                assert isinstance(connection, BoundedProtocol)
                connection.end_if_late(now, self._work_seconds)


def open_socket(address: str, *, is_protected: bool) -> socket.socket:
    """Listens on one numeric address of HOST:PORT.

    Raises:
        ListenError: it cannot be listened there.
    """
    host, _, port = address.rpartition(":")
    family, number = resolve_host(host)
    check_reach(host, number, is_protected=is_protected, stay=f"{FLAG} 127.0.0.1:{port}")
    # asyncio sends small pieces at once (TCP_NODELAY) where the protocol is named alone: else each answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((number, int(port)))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {address}: {describe_error(error, family, number, FLAG)}") from None
    return listener
