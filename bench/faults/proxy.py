"""A bad network between a caller and a server: slow, cut off, or one that alters what it carries."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from contextlib import suppress

BLOCK = 65_536
FAST_BYTES = 400
"""What begins a connection of gRPC: preface, settings, headers of the first call."""
FLIP_SHARE = 0.3
"""Of what arrives at once, that has a bit flipped."""


class Proxy:
    """Passes connections on to a server; use it in a ``with`` statement.

    Attributes:
        address: where to connect to, HOST:PORT.
    """

    def __init__(
        self,
        target: str,
        *,
        rate: float = 0.0,
        fast_bytes: int = FAST_BYTES,
        source: random.Random | None = None,
    ) -> None:
        """Listens.

        Args:
            target: of the server, HOST:PORT.
            rate: bytes a second towards the server, one by one; 0: as fast as they come.
            fast_bytes: of each connection, that pass at once and unaltered all the same.
            source: of chance, by which bits on the way to the server are flipped; None: none is.
        """
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._rate, self._fast_bytes, self._random = rate, fast_bytes, source
        self.flips = 0
        """Bits that were flipped."""

        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._is_over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    @property
    def open(self) -> int:
        """Connections to the server that it has not closed."""
        return sum(one.fileno() >= 0 for one in self._sockets[1::2])

    def reset(self) -> None:
        """Cuts all connections off, without a word of farewell (RST)."""
        for one in self._sockets:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RD)
            with suppress(OSError):
                one.close()
        self._sockets.clear()

    def _accept(self) -> None:
        while not self._is_over.is_set():
            try:
                caller, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            self._sockets += [caller, server]
            threading.Thread(target=self._pass_on, args=(caller, server, self._rate), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, caller, 0.0), daemon=True).start()

    def _flip(self, data: bytes, start: int) -> bytes:
        assert self._random is not None
        if start >= len(data) or self._random.random() > FLIP_SHARE:
            return data
        altered = bytearray(data)
        altered[self._random.randrange(start, len(data))] ^= 1 << self._random.randrange(8)
        self.flips += 1
        return bytes(altered)

    def _pass_on(self, source: socket.socket, target: socket.socket, rate: float) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(BLOCK):
                if source in self._sockets[::2] and self._random is not None:
                    data = self._flip(data, max(0, self._fast_bytes - passed))
                if not rate:
                    passed += len(data)
                    target.sendall(data)
                    continue
                fast = max(0, self._fast_bytes - passed)
                target.sendall(data[:fast])
                passed += len(data)
                for byte in data[fast:]:
                    if self._is_over.is_set():
                        return
                    target.sendall(bytes((byte,)))
                    time.sleep(1 / rate)
        if not self._is_over.is_set():
            for one in (source, target):
                with suppress(OSError):
                    one.close()
