"""Callers that open calls and do not get on with them, by hand in HTTP/2: gRPC's own clients send no headers alone."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
ACK, END_HEADERS = 1, 4


def make_frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """RFC 9113, 4.1."""
    return struct.pack("!I", len(content))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + content


def make_headers(method: str) -> bytes:
    """The header block of a call of gRPC: literals that are not indexed (RFC 7541, 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


class SlowConnection:
    """A connection on which calls are opened. It answers pings, and takes what comes.

    Attributes:
        address: of the server.
        ended: numbers of the calls that the server has ended.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        self.ended: set[int] = set()
        self._socket = socket.create_connection((host, int(port)))
        self._lock = threading.Lock()
        self._next = 1
        self._send(PREFACE + make_frame(SETTINGS, 0, 0))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def open_calls(self, method: str, number: int) -> list[int]:
        """Opens so many calls by their headers alone, and returns their numbers."""
        calls = [self._next + 2 * index for index in range(number)]
        self._next += 2 * number
        block = make_headers(method)
        self._send(b"".join(make_frame(HEADERS, END_HEADERS, call, block) for call in calls))
        return calls

    def send(self, call: int, data: bytes) -> None:
        """Sends some of the body of a call."""
        self._send(make_frame(DATA, 0, call, data))

    def close(self) -> None:
        """Leaves."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(10)
        self._socket.close()

    def _send(self, data: bytes) -> None:
        with self._lock:
            self._socket.sendall(data)

    def _read(self) -> None:
        pending = b""
        with suppress(OSError):
            while data := self._socket.recv(65536):
                pending += data
                while len(pending) >= 9 and len(pending) >= (end := 9 + int.from_bytes(pending[:3], "big")):
                    self._take(pending[3], pending[4], int.from_bytes(pending[5:9], "big"), pending[9:end])
                    pending = pending[end:]

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind in (SETTINGS, PING) and not flags & ACK:
            self._send(make_frame(kind, ACK, 0, content if kind == PING else b""))
        elif kind == RST_STREAM or (kind == HEADERS and flags & 1):
            self.ended.add(stream)


@contextmanager
def slow_connections(address: str, number: int) -> Iterator[list[SlowConnection]]:
    """So many of them, as long as the block lasts."""
    with ExitStack() as stack:
        connections = []
        for _ in range(number):
            connection = SlowConnection(address)
            stack.callback(connection.close)
            connections.append(connection)
        yield connections
