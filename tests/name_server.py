"""A server of names on this machine, as that of a cluster: a name has the addresses that a test gives it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

IPV4 = 1
HEADER_BYTES = 12


class NameServer:
    """Answers every question for IPv4 with ``addresses``, and all others with nothing (RFC 1035).

    Attributes:
        addresses: of any name, IPv4; may be changed at any time.
        address: where it answers, HOST:PORT.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self._socket.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                question, caller = self._socket.recvfrom(512)
                self._socket.sendto(self._answer(question), caller)

    def _answer(self, question: bytes) -> bytes:
        end = question.index(b"\0", HEADER_BYTES) + 5  # of the name, its kind and its class
        (kind,) = struct.unpack(">H", question[end - 4 : end - 2])
        found = self.addresses if kind == IPV4 else []
        head = question[:2] + struct.pack(">5H", 0x8180, 1, len(found), 0, 0)
        records = [struct.pack(">3HIH", 0xC00C, IPV4, 1, 5, 4) + socket.inet_aton(address) for address in found]
        return head + question[HEADER_BYTES:end] + b"".join(records)


@contextmanager
def name_server() -> Iterator[NameServer]:
    """Runs one as long as the block lasts."""
    server = NameServer()
    try:
        yield server
    finally:
        server.close()
