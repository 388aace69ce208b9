"""What only looks whether a port is open: load balancers, scanners, monitoring."""

from __future__ import annotations

import os
import socket

from client import StrokeClient
from tests.fakes import ServerProcess, encode, make_slice, wait_until

PROBES = 1500


def count_open(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def test_tcp_probes_leave_no_trace(tiny_server: ServerProcess) -> None:
    """Connections that say nothing, something else, or close halfway: the next caller is served, nothing stays open."""
    host, _, port = tiny_server.address.rpartition(":")
    with StrokeClient(tiny_server.address) as client:
        image = encode(make_slice(side=64))
        client.predict(image)
        before = count_open(tiny_server.process.pid)
        for number in range(PROBES):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                if number % 3 == 1:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                elif number % 3 == 2:
                    connection.shutdown(socket.SHUT_WR)

        assert client.predict(image).label
        with StrokeClient(tiny_server.address) as newcomer:
            assert newcomer.predict(image).label
        wait_until(lambda: count_open(tiny_server.process.pid) <= before)
    assert not [line for line in tiny_server.log if "Traceback" in line or " ERROR " in line]
