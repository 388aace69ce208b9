"""Ray Serve has as many replicas as there are open calls for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import psutil
import pytest

from client import StrokeClient
from cluster.bench.processes import list_family
from tests.cluster.test_serve import find_port
from tests.fakes import encode, make_slice, wait_until, write_model
from tests.tracing import ROOT

REPLICA = "ray::ServeReplica:stroke:"
SECONDS = 600
"""Far more than it takes."""

SOON = {
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
}
"""How often Ray counts calls: by default every 10 s."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of Ray's proxy, and the command behind it, which may have one or two replicas."""
    for name, value in SOON.items():
        monkeypatch.setenv(name, value)
    write_model(tmp_path)
    port = find_port()
    command = [sys.executable, "-m", "cluster", "serve", "--insecure", "--port", str(port)]
    command += ["--http-port", str(find_port()), "--models", str(tmp_path), "--cache", "off", "--most-replicas", "2"]
    command += ["--target-calls", "1", "--grow-seconds", "1", "--shrink-seconds", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("serving tiny 1 on port") for line in lines)
        yield f"127.0.0.1:{port}", process
        process.terminate()
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def count_replicas(process: subprocess.Popen[str]) -> int:
    """Processes that serve."""
    with suppress(psutil.Error):
        return sum(is_replica(one) for one in list_family(process.pid))
    return 0


def is_replica(process: psutil.Process) -> bool:
    """Whether it serves; one that has ended has no command any more."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).startswith(REPLICA)
    return False


def call_until(address: str, is_over: Event) -> int:
    """Asks again and again, and returns how often; every answer must come."""
    image, calls = encode(make_slice()), 0
    with StrokeClient(address) as client:
        while not is_over.is_set():
            assert client.predict(image, timeout=SECONDS).label
            calls += 1
    return calls


def test_replicas_come_with_open_calls_and_go_with_them(served: tuple[str, subprocess.Popen[str]]) -> None:
    """One, two with six callers who always wait for an answer, and one again; no call fails meanwhile."""
    address, process = served
    assert count_replicas(process) == 1
    is_over = Event()

    with ThreadPoolExecutor(6) as callers:
        calls = [callers.submit(call_until, address, is_over) for _ in range(6)]
        try:
            wait_until(lambda: count_replicas(process) == 2 or any(call.done() for call in calls), SECONDS)
        finally:
            is_over.set()
    assert all(call.result() for call in calls)
    wait_until(lambda: count_replicas(process) == 1, SECONDS)
