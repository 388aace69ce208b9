"""Callers that open calls and do not get on with them stop nobody: no worker, no place, no health check."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.fakes import ServerProcess, run_server, wait_until
from tests.scraping import find_free_port, scrape
from tests.slow_callers import SlowConnection, slow_connections
from tests.test_server_attacks import SERVICE, TIMEOUT, Witness

pytestmark = pytest.mark.timed

HEALTH = "/grpc.health.v1.Health"
BURST = 100
"""Calls that are opened together: of more than 1,000 that nobody has looked at gRPC drops some, whosever they are."""

MESSAGE_HEAD = struct.pack("!BI", 0, 1_000_000)
"""Of a message of gRPC: not compressed, 1 MB."""


def read_in_flight(port: int) -> float:
    return scrape(port).get("stroke_requests_in_flight")


def open_calls(attackers: list[SlowConnection], method: str, number: int) -> list[int]:
    """Opens so many calls on each connection, and returns their numbers; the next when the server has looked at the
    last, however busy the machine is."""
    calls: list[int] = []
    with grpc.insecure_channel(attackers[0].address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(number // BURST):
            (*_, numbers) = [attacker.open_calls(method, BURST) for attacker in attackers]
            calls += numbers
            health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    return calls


@contextmanager
def dripping(connections: list[SlowConnection], calls: list[list[int]]) -> Iterator[None]:
    """Each of the calls gets a byte now and then."""
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.5):
            for connection, numbers in zip(connections, calls, strict=True):
                for call in numbers:
                    if call not in connection.ended:
                        connection.send(call, b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def watch(server: ServerProcess, hold: Callable[[Witness], None]) -> None:
    """Others are answered during an attack."""
    with Witness(server) as witness:
        hold(witness)
        seen = {name: len(found) for name, found in witness.seconds.items()}
        wait_until(lambda: all(len(found) > seen[name] + 20 for name, found in witness.seconds.items()))
    witness.check()


@pytest.mark.parametrize(
    ("method", "connections", "calls"), [("Predict", 1, 1000), ("Predict", 4, 300), ("PredictStream", 4, 300)]
)
def test_calls_whose_message_does_not_come(tiny_models: Path, method: str, connections: int, calls: int) -> None:
    """All that a connection gets, or some, are not in the way of others."""
    port = find_free_port()
    with (
        run_server(tiny_models, "--metrics-port", str(port)) as server,
        slow_connections(server.address, connections) as attackers,
    ):

        def attack(witness: Witness) -> None:
            open_calls(attackers, f"{SERVICE}/{method}", calls)
            wait_until(lambda: read_in_flight(port) > (400 if method == "Predict" else 10))

        watch(server, attack)


@pytest.mark.parametrize(("method", "connections"), [("Check", 1), ("Check", 4), ("Watch", 4)])
def test_checks_whose_message_does_not_come(tiny_models: Path, method: str, connections: int) -> None:
    """More than there are places for checks."""
    with run_server(tiny_models) as server, slow_connections(server.address, connections) as attackers:

        def attack(witness: Witness) -> None:
            open_calls(attackers, f"{HEALTH}/{method}", 600)
            wait_until(lambda: sum(len(attacker.ended) for attacker in attackers) > 600 * connections - 512)

        watch(server, attack)


def test_bodies_that_come_byte_by_byte(tiny_models: Path) -> None:
    """300 calls on each of four connections, images and checks."""
    port = find_free_port()
    with (
        run_server(tiny_models, "--metrics-port", str(port)) as server,
        slow_connections(server.address, 4) as attackers,
    ):
        methods = (f"{SERVICE}/Predict", f"{SERVICE}/PredictStream", f"{HEALTH}/Check", f"{SERVICE}/Predict")
        calls = [open_calls([attacker], method, 300) for attacker, method in zip(attackers, methods, strict=True)]
        for attacker, numbers in zip(attackers, calls, strict=True):
            for call in numbers:
                attacker.send(call, MESSAGE_HEAD)
        with dripping(attackers, calls):
            watch(server, lambda witness: wait_until(lambda: read_in_flight(port) > 400))


def test_silent_connections(tiny_models: Path) -> None:
    """500 that say nothing cost nobody anything, and are closed after a while."""
    with run_server(tiny_models) as server:
        host, _, port = server.address.rpartition(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(500)]
        try:
            watch(server, lambda witness: None)
            started = time.monotonic()
            for one in silent:
                one.settimeout(30)
                while one.recv(1024):
                    pass
            assert time.monotonic() - started < 15
        finally:
            for one in silent:
                one.close()
