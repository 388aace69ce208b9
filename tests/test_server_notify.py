"""What a service manager hears: a real socket in its place."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from server.process.notify import find_watchdog_seconds, notify
from tests.fakes import run_server


def test_manager_hears_of_readiness_life_and_stop(tiny_models: Path, tmp_path: Path) -> None:
    """In this order; signs of life come twice in the time after which it would end the process."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        with run_server(tiny_models, NOTIFY_SOCKET=str(path), WATCHDOG_USEC="400000") as server:
            assert manager.recv(1000).startswith(b"READY=1\nSTATUS=serving ")
            assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            server.stop(signal.SIGTERM)
        while (word := manager.recv(1000)) == b"WATCHDOG=1":
            pass
        assert word == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "@stroke-nobody-listens"])
def test_manager_that_is_away_is_no_error(address: str) -> None:
    """Whatever the variable says."""
    notify("READY=1", {"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_is_for_the_process_that_is_meant(environment: dict[str, str], seconds: float | None) -> None:
    """Children of it have the same environment."""
    assert find_watchdog_seconds(environment) == seconds
