"""One connection of HTTP/1.1, within bounds: what it may send at a time, and how long it may be kept waiting for.

uvicorn parses and writes by h11. What they leave open is bounded here: heads that are long, requests that are sent
before the answer to the last (they stay in the buffer of the connection), and what is no HTTP at all, which is answered
as every other error is.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from server.admission.ids import new_id
from server.admission.status import Status
from server.security.identity import read_peer_certificate
from server.web.envelope import CLOSE, HEADERS
from server.web.problems import make_problem

NAMES = "stroke.names"
"""Key in the scope of a request: the names of the caller's verified certificate."""

PROLONG = "stroke.prolong"
"""Key in the scope of a request: what is called when one that may take long gets on."""

MOST_HEAD_BYTES = 16 * 1024
HEAD_PIECE, BODY_PIECE = 16 * 1024, 64 * 1024
"""So many bytes are parsed at a time, of a head and of a body: h11 would take a head of any length that has come as a
whole, and needs 7 ms for one of 16 KiB."""

FEW_CHUNKS, LEAST_CHUNK = 64, 512
"""More chunks than the one must have the other in bytes on average."""

TOO_LONG = 431
"""By which h11 hints that a head is."""

IDLE_SECONDS = 30.0
"""How long a connection may be without a request whose head has come."""

FRESH_SECONDS = 1.0
"""How long a connection without a request is no worse than one whose request is arriving."""

LINGER_SECONDS = 1.0
"""How long a caller that was refused has time to read why."""


class SmallChunksError(h11.RemoteProtocolError):
    """See ``LEAST_CHUNK``."""


class Parser(h11.Connection):
    """h11's parser, for bodies that come in chunks of a size that is worth it: each takes as long as a kilobyte."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MOST_HEAD_BYTES)
        self._chunks = self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """See h11."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._bytes += len(event.data)
            self._chunks += event.chunk_start
            if self._chunks > FEW_CHUNKS and self._bytes < self._chunks * LEAST_CHUNK:
                raise SmallChunksError("chunks are too small")
        return event


class Flow(FlowControl):
    """Says when a connection is read from: not as long as there is something that has not been parsed."""

    def __init__(self, transport: asyncio.Transport, unparsed: bytearray) -> None:
        super().__init__(transport)
        self._unparsed = unparsed

    def resume_reading(self) -> None:
        """Reads on, if there is nothing to be parsed."""
        if not self._unparsed:
            super().resume_reading()


class Connection(H11Protocol):
    """One connection, from the moment it is accepted.

    Attributes:
        address: whose it is; without the port.
        since: when it was made, its last request had a head or got on, or its last answer was complete, in seconds of
            ``time.monotonic``: what came last.
        ends_at: when it is old: it ends with the answer to the next request, and says so in it.
        greeting: what makes it, TLS included.
        accepted: its socket, until it is being made.
        ended: set once it is closed.
    """

    def __init__(
        self, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop, address: str, most_seconds: float
    ) -> None:
        super().__init__(config, state, {}, loop)
        self.conn = Parser()
        self.address = address
        self.since = time.monotonic()
        self.ends_at = self.since + most_seconds
        self.greeting: asyncio.Task[None] | None = None
        self.accepted: socket.socket | None = None
        self.ended = asyncio.Event()
        self._unparsed = bytearray()
        self._is_over = False

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way: none whose head has come and whose answer has not been written."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def waits_for_caller(self) -> bool:
        """Whether nothing is done for it: it is idle, or its caller has to send the rest, or to take the answer."""
        return self.is_idle or self.cycle.more_body or self.cycle.response_started

    @property
    def sends_on(self) -> bool:
        """Whether another request has come before the answer to the last was complete."""
        return bool(self._unparsed) or (self.conn.their_state is h11.DONE and bool(self.conn.trailing_data[0]))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Notes who is there."""
        super().connection_made(transport)
        self.flow = Flow(transport, self._unparsed)
        transport.set_write_buffer_limits(HIGH_WATER_LIMIT)
        app, names = self.app, read_peer_certificate(transport.get_extra_info("peercert"))

        async def answer(send: Any, message: Any) -> None:
            if "headers" in message and time.monotonic() > self.ends_at and CLOSE not in message["headers"]:
                message["headers"] = [*message["headers"], CLOSE]
            await send(message)

        async def run(scope: Any, receive: Any, send: Any) -> None:
            scope[NAMES] = names
            scope[PROLONG] = self.prolong
            await app(scope, receive, partial(answer, send))

        self.app = run

    def prolong(self) -> None:
        """Gives the request that is under way as long as a new one: something of it has come to its end."""
        self.since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives its place free."""
        super().connection_lost(exc)
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        """Takes what has come."""
        if not self._is_over:
            self._unparsed += data
            self._parse()

    def on_response_complete(self) -> None:
        """Begins to wait for another request, or takes the one that is there."""
        self.since = time.monotonic()
        super().on_response_complete()
        self._parse()
        if len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()

    def _parse(self) -> None:
        """Parses a piece after the other, as long as it belongs to a request whose turn it is."""
        while self._unparsed and not self._is_over and not self.transport.is_closing():
            if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
                self.flow.pause_reading()
                return
            size = HEAD_PIECE if self.conn.their_state is h11.IDLE else BODY_PIECE
            piece = bytes(self._unparsed[:size])
            del self._unparsed[:size]
            was_idle = self.is_idle
            super().data_received(piece)
            if was_idle and not self.is_idle:
                self.since = time.monotonic()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP. Where an answer is under way there is no place for another: the connection ends."""
        error = sys.exception()
        can_answer = self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not can_answer:
            self.transport.abort()
            return
        problem = make_problem(find_fault(error), new_id())
        headers = [*self.server_state.default_headers, *problem.raw_headers, *HEADERS, CLOSE]
        phrase = HTTPStatus(problem.status_code).phrase.encode()
        head = h11.Response(status_code=problem.status_code, headers=headers, reason=phrase)
        for event in (head, h11.Data(data=bytes(problem.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._end_soon()

    def _end_soon(self) -> None:
        """Ends the connection once its caller has had time to read: what it still sends would reset it before that."""
        self._is_over = True
        if self.transport.can_write_eof():  # not with TLS
            with suppress(OSError):  # its caller has gone
                self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.end)

    def shutdown(self) -> None:
        """Ends the connection after the request that is under way, if one is."""
        if self.is_idle:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def timeout_keep_alive_handler(self) -> None:
        """Ends the connection on which no other request has come."""
        self.transport.close()

    def end(self) -> None:
        """Ends the connection at once."""
        if self.transport is None:
            if self.greeting is not None:
                self.greeting.cancel()
            if self.accepted is not None:
                self.accepted.close()
        else:
            self.transport.abort()

    def end_if_late(self, now: float, work_seconds: float) -> None:
        """Ends the connection when nothing comes of it any more.

        Args:
            now: seconds of ``time.monotonic``.
            work_seconds: how long a request may take, from its head to the last byte of its answer.
        """
        if now - self.since > (IDLE_SECONDS if self.is_idle else work_seconds):
            self.end()


def find_fault(error: BaseException | None) -> Status:
    """What is wrong with bytes that h11 has refused."""
    if isinstance(error, SmallChunksError):
        sentence = f"The body comes in chunks of less than {LEAST_CHUNK} bytes: send larger ones."
        return Status("INVALID_ARGUMENT", "REQUEST_MALFORMED", sentence)
    if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == TOO_LONG:
        sentence = f"The head of a request has at most {MOST_HEAD_BYTES:,} bytes."
        return Status("INVALID_ARGUMENT", "HEAD_TOO_LARGE", sentence)
    return Status("INVALID_ARGUMENT", "REQUEST_MALFORMED", "That is no request of HTTP/1.1.")


def choose_least(connections: Collection[Connection]) -> Connection | None:
    """The connection that has to make way for another one; None: all have a request that is being served, and no more.

    It is one of the address that has most. Of those it is one that sends on without waiting for answers, otherwise the
    one that has been idle for longest, otherwise the one whose caller has been waited for longest.
    """
    each = Counter(connection.address for connection in connections)
    waiting = [connection for connection in connections if connection.waits_for_caller or connection.sends_on]
    fresh = time.monotonic() - FRESH_SECONDS

    def weigh(one: Connection) -> tuple[int, bool, bool, float]:
        return each[one.address], one.sends_on, one.is_idle and one.since < fresh, -one.since

    return max(waiting, key=weigh, default=None)
