"""The port of HTTP: so many connections and no more, each of which ends when nothing comes of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from server.core.capacity import HTTP_CONNECTIONS
from server.machine.addresses import ListenError, check_reach, describe_error, resolve_host
from server.web.connection import IDLE_SECONDS, MOST_HEAD_BYTES, Connection, choose_least

FLAG = "--http"
SYSTEM_BYTES = 128 * 1024
"""What the system keeps of each direction of a connection; it would be megabytes, and as many answers made for somebody
who takes none."""

BACKLOG = 128
ACCEPTED_TOGETHER = 16
WORK_SECONDS = 120.0
"""How long a request may take, from its head to the last byte of its answer: to arrive (30 s), to wait and be judged
(30 s), and to be taken; more where images may wait for longer."""

HANDSHAKE_SECONDS = 10.0
SWEEP_SECONDS = 1.0
RETRY_SECONDS = 0.5
"""After which another connection is tried, where there was no descriptor for one."""

POLL_SECONDS = 0.01


class WebPort:
    """Serves an application of ASGI. For one event loop."""

    def __init__(
        self,
        app: Any,
        most_wait_seconds: float,
        connection_seconds: float,
        find_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """Listens nowhere yet.

        Args:
            app: the application.
            most_wait_seconds: how long an image may wait for its turn.
            connection_seconds: after which a connection ends with the answer to its next request.
            find_context: the settings of TLS for the next connection; None: plain text.
        """
        self._state = ServerState()
        self._config = Config(
            app,
            http=Connection,
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
        self._find_context = find_context
        self._connection_seconds = connection_seconds
        self._work_seconds = WORK_SECONDS + most_wait_seconds
        self._listener: socket.socket | None = None
        self._open: set[Connection] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def listen(self, address: str, *, is_insecure: bool) -> str:
        """Begins to serve; returns the address as a URL.

        Args:
            address: HOST:PORT.
            is_insecure: plain text may leave this machine.

        Raises:
            ListenError: it cannot be listened there.
        """
        is_protected = self._find_context is not None
        self._listener = open_socket(address, is_protected=is_protected or is_insecure)
        self._note_date()
        self._tasks = [asyncio.create_task(self._accept(self._listener)), asyncio.create_task(self._sweep())]
        host, port = self._listener.getsockname()[:2]
        scheme = "https" if is_protected else "http"
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"

    async def close(self) -> None:
        """Ends listening, and each connection after the request that is under way on it."""
        if self._listener is not None and self._tasks:
            self._tasks[0].cancel()
            await asyncio.wait(self._tasks[:1])
            self._listener.close()
            for connection in list(self._open):
                if connection.transport is None:
                    connection.end()
                else:
                    connection.shutdown()

    async def leave(self, seconds: float) -> None:
        """Ends all connections: at once, or in so many seconds those whose last answers are not out yet."""
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            await asyncio.sleep(POLL_SECONDS)
        for task in self._tasks:
            task.cancel()
        for connection in list(self._open):
            connection.end()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count(1):
            try:
                accepted, peer = await loop.sock_accept(listener)
            except OSError:  # such as that this process has no more descriptors
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self._make_room():
                connection = Connection(self._config, self._state, loop, peer[0], self._connection_seconds)
                self._open.add(connection)
                connection.accepted = accepted
                connection.greeting = asyncio.create_task(self._greet(connection, accepted))
            else:
                accepted.close()
            if number % ACCEPTED_TOGETHER == 0:
                await asyncio.sleep(0)  # for the others, when many come

    def _make_room(self) -> bool:
        """Whether there is a place for another connection; one whose caller is waited for may have had to leave it."""
        if len(self._open) < HTTP_CONNECTIONS:
            return True
        least = choose_least(self._open)
        if least is None:
            return False
        self._open.discard(least)
        least.end()
        return True

    async def _greet(self, connection: Connection, accepted: socket.socket) -> None:
        """Makes a connection, TLS included, and holds its place until it ends."""
        context = self._find_context() if self._find_context is not None else None
        connection.accepted = None
        try:
            with suppress(OSError, asyncio.CancelledError):  # TLS failed, or took too long, or the place was needed
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    accepted,
                    ssl=context,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
                )
                await connection.ended.wait()
        finally:
            self._open.discard(connection)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._note_date()
            now = time.monotonic()
            for connection in list(self._open):
                if connection.transport is not None:
                    connection.end_if_late(now, self._work_seconds)

    def _note_date(self) -> None:
        """What the answers of the next second say of the time."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]


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
        for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # connections inherit it
            listener.setsockopt(socket.SOL_SOCKET, direction, SYSTEM_BYTES)
        listener.bind((number, int(port)))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {address}: {describe_error(error, family, number, FLAG)}") from None
    return listener
