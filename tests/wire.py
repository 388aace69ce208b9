"""A TCP forwarder for tests of connections: it counts what passes, and goes silent as a firewall does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Wire:
    """A forwarder between a client and a server, which counts HTTP/2 pings and can go silent as a firewall does."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self.pings = 0
        self.goaways: list[bytes] = []
        self._port = port
        self._silent: set[int] = set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def go_silent(self) -> None:
        """From now on the connections there are get nothing through, either way, and nobody is told; new ones do."""
        self._silent = set(range(self.connections))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in self._sockets:
            connection.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._port))
                except OSError:  # the server is not there yet
                    near.close()
                    continue
                self._sockets += [near, far]
                number, self.connections = self.connections, self.connections + 1
                self._start(self._forward, near, far, number, len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
                self._start(self._forward, far, near, number, 0)

    def _forward(self, source: socket.socket, sink: socket.socket, number: int, preface: int) -> None:
        pending = b""
        with suppress(OSError):
            while data := source.recv(65536):
                if number in self._silent:
                    continue
                sink.sendall(data)
                pending += data
                pending, skipped = pending[preface:], min(preface, len(pending))
                preface -= skipped
                while len(pending) >= 9 and len(pending) >= 9 + (size := int.from_bytes(pending[:3], "big")):
                    kind, flags, content = pending[3], pending[4], pending[9 : 9 + size]
                    pending = pending[9 + size :]
                    # Of the client's pings, not the answers to the server's.
                    self.pings += kind == 6 and not flags & 1 and source.getpeername()[1] != self._port
                    if kind == 7:
                        self.goaways.append(content[8:])
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def open_wire(port: int) -> Iterator[Wire]:
    """Forwards to ``port`` of this machine as long as the block lasts."""
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()
