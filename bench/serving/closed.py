"""One closed loop on a running server, with what it cost on either side."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Protocol

from bench.processes import read_busy_seconds
from bench.report.figures import describe_latencies
from bench.serving.load import spawn
from bench.serving.targets import NO_ACCESS, Access
from server.machine.processors import count_processors


class Loaded(Protocol):
    """What is under load."""

    @property
    def address(self) -> str:
        """As clients take it."""

    def cpu_seconds(self) -> float:
        """CPU time so far, user and system."""


def measure_closed(
    service: Loaded,
    images: Path,
    seconds: float,
    clients: int,
    *,
    target: str = "stroke",
    address: str | None = None,
    access: Access = NO_ACCESS,
    python: str = sys.executable,
) -> dict[str, float]:
    """Latencies, images a second, CPU time of server and clients for an image, and what other processes took.

    Args:
        service: the server's processes.
        images: folder of images.
        seconds: length of the measurement.
        clients: clients, which share a process of their own and have a connection each.
        target: how to call the server, a key of ``bench.serving.targets.TARGETS``.
        address: HOST:PORT, where that is not the service's own.
        access: how clients of this project's server show who they are.
        python: interpreter whose environment has the target's packages.
    """
    busy, own, server, started = read_busy_seconds(), read_own_seconds(), service.cpu_seconds(), time.monotonic()
    load = spawn(target, address or service.address, images, seconds, clients=clients, access=access, python=python)
    server = service.cpu_seconds() - server
    others = read_busy_seconds() - busy - (read_own_seconds() - own) - server
    return {
        **describe_latencies(load.latencies_ms),
        "rate": load.rate,
        "server_cpu_ms": 1000 * server / load.calls,
        "client_cpu_ms": 1000 * load.cpu_seconds / load.calls,
        "others": max(0.0, others / (time.monotonic() - started) / count_processors()),
    }


def read_own_seconds() -> float:
    """CPU time so far, user and system, of this process and those that it has started and that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
