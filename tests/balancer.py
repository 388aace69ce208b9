"""Balancing of connections, not of calls (layer 4), as a plain Service of Kubernetes and most balancers do it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BLOCK = 65_536


class Balancer:
    """Passes each connection on to the next of its targets that takes it.

    Attributes:
        targets: HOST and port of each; may be changed at any time, which leaves connections as they are.
        address: where it listens, HOST:PORT.
    """

    def __init__(self) -> None:
        self.targets: list[tuple[str, int]] = []
        self._made = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections; those that there are end with either side."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = self._connect()
                if server is None:
                    caller.close()
                    continue
                threading.Thread(target=serve, args=(caller, server), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        targets = list(self.targets)
        for _ in targets:
            self._made += 1
            with suppress(OSError):
                return socket.create_connection(targets[self._made % len(targets)], timeout=10)
        return None


def serve(caller: socket.socket, server: socket.socket) -> None:
    """Passes on what comes from both sides until one of them ends."""
    server.settimeout(None)
    back = threading.Thread(target=pass_on, args=(server, caller), daemon=True)
    with caller, server:
        back.start()
        pass_on(caller, server)
        back.join()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """Passes on what comes, to its end, which it passes on as well."""
    with suppress(OSError):
        while data := source.recv(BLOCK):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextmanager
def balancer() -> Iterator[Balancer]:
    """Runs one as long as the block lasts."""
    running = Balancer()
    try:
        yield running
    finally:
        running.close()
