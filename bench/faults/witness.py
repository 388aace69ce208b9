"""Somebody who looks at a server from outside while something is done to it: memory, descriptors, threads, health."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench.faults.load import wait_until
from bench.faults.server import Server
from client.cli.latencies import find_percentile
from server.process.children import start

SAMPLE_SECONDS = 0.1
HEALTH_TIMEOUT = 10.0


@dataclass(frozen=True)
class Sample:
    """What a process has at one moment."""

    at: float
    resident_mb: float
    """MB of 10**6 bytes, as the server states them."""

    descriptors: int
    threads: int


@dataclass(frozen=True)
class Check:
    """A question for health."""

    at: float
    """When it was asked."""

    seconds: float
    status: str
    """SERVING, NOT_SERVING, or gRPC's name of what went wrong."""


def look(pid: int) -> Sample | None:
    """Looks at a process; None when it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (OSError, IndexError):
        return None
    return Sample(time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6, descriptors, threads)


def read_cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


ASK = """
import sys, time, grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
address, pause, timeout = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
options = [("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 200)]
with grpc.insecure_channel(address, options=options) as line:
    stub = health_pb2_grpc.HealthStub(line)
    while True:
        at = time.monotonic()
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
            status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        except grpc.RpcError as error:
            status = error.code().name
        print(at, time.monotonic() - at, status, flush=True)
        time.sleep(pause)
"""
"""Asks again and again, from a process of its own: what else the bench does would keep a thread of it waiting."""


class Witness:
    """Looks and asks all the time; use it in a ``with`` statement.

    Attributes:
        samples: in the order of time, of whatever process ran.
        checks: in the order of time.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stopping = threading.Event()
        self.samples: list[Sample] = []
        self.checks: list[Check] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Witness:
        arguments = [self._server.address, str(SAMPLE_SECONDS), str(HEALTH_TIMEOUT)]
        self._process = start(
            [sys.executable, "-c", ASK, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        self._threads = [
            threading.Thread(target=self._look, daemon=True),
            threading.Thread(target=self._take, args=(self._process,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.checks or self._process.poll() is not None, 2 * HEALTH_TIMEOUT)
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(2 * HEALTH_TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def peak_mb(self) -> float:
        """Most resident memory that was seen."""
        return max((sample.resident_mb for sample in self.samples), default=0.0)

    def find_health(self, percent: float = 100.0) -> float:
        """A percentile of the seconds of those questions that were answered; 0 of none."""
        seconds = sorted(check.seconds for check in self.checks if check.status.endswith("SERVING"))
        return find_percentile(seconds, percent) if seconds else 0.0

    def count_unanswered(self) -> int:
        """Questions for health without an answer."""
        return sum(not check.status.endswith("SERVING") for check in self.checks)

    def wait_back(self, before: Sample, *, descriptors: int = 2, threads: int = 2, seconds: float = 30.0) -> Sample:
        """Waits until a process has what it had before, or nearly, and returns what it has in the end."""

        def is_back() -> bool:
            now = look(self._server.pid)
            return now is not None and (
                now.descriptors <= before.descriptors + descriptors and now.threads <= before.threads + threads
            )

        wait_until(is_back, seconds)
        now = look(self._server.pid)
        assert now is not None
        return now

    def _look(self) -> None:
        while not self._stopping.wait(SAMPLE_SECONDS):
            try:
                sample = look(self._server.pid)
            except RuntimeError:  # it is being started again
                continue
            if sample is not None:
                self.samples.append(sample)

    def _take(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # it was killed while it wrote
            at, seconds, status = line.split()
            self.checks.append(Check(float(at), float(seconds), status))
