"""Servers as processes: started, measured from outside, stopped. Linux only, since it reads /proc for peaks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from server.process.children import start

ROOT = Path(__file__).resolve().parent.parent

INTERVAL = 0.1
"""Seconds between two looks at a process."""


@dataclass(frozen=True)
class Service:
    """A running server: a process and all that it started."""

    pid: int
    address: str
    """HOST:PORT."""

    def cpu_seconds(self) -> float:
        """CPU time so far, user and system, of all its processes that are alive."""
        return self._sum(lambda process: sum(process.cpu_times()[:2]))

    def resident_mb(self) -> float:
        """Resident memory in MB (2**20 bytes), summed over its processes."""
        return self._sum(lambda process: process.memory_info().rss / 2**20)

    def _sum(self, read: Callable[[psutil.Process], float]) -> float:
        total = 0.0
        for process in list_tree(self.pid):
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                total += read(process)
        return total


def list_tree(root: int) -> list[psutil.Process]:
    """Returns a process and its descendants; none when it has ended."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def read_peak(pid: int) -> float:
    """Returns the largest resident memory that a process has had, in MB (2**20 bytes); 0 of one that has ended.

    Read from VmHWM of /proc/PID/status (proc(5)): psutil has no peak on Linux.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def watch_peak(process: subprocess.Popen[Any]) -> float:
    """Waits for a process and returns its largest resident memory in MB (2**20 bytes); ends it when this is ended.

    Looked up in /proc while it runs: what wait4 tells of a child can be its parent's, from between fork and exec.
    """
    peak = 0.0
    try:
        while process.poll() is None:
            peak = max(peak, read_peak(process.pid))
            time.sleep(INTERVAL)
    finally:
        process.terminate()
        process.wait()
    return peak


def read_busy_seconds() -> float:
    """CPU time so far of everything on this machine, user and system, in seconds."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


@contextmanager
def run_server(
    models: Path, flags: Sequence[str] = (), checkout: Path = ROOT, *, program: Sequence[str] = ("server",)
) -> Iterator[Service]:
    """Runs ``python -m server`` of a checkout on a free port, with further flags; yields when it serves. ``program`` is
    another module that takes its flags, and the words before them."""
    command = [sys.executable, "-m", *program, "--models", str((ROOT / models).resolve()), "--port", "0"]
    command += ["--log-level", "warning", *flags]
    # As where it is installed: modules are compiled once, not at each start.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = start(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        try:
            banner = process.stdout.readline().strip()
            if not banner:
                raise SystemExit("bench: the server did not start")
            yield Service(process.pid, banner.rsplit(" ", 1)[1])
        finally:
            process.terminate()
            process.wait()


def measure_cold_start(models: Path, image: bytes, flags: Sequence[str], checkout: Path = ROOT) -> float:
    """Seconds from starting the server process to its first answer."""
    from client import StrokeClient

    started = time.monotonic()
    with run_server(models, flags, checkout) as service, StrokeClient(service.address) as client:
        client.predict(image)
        return time.monotonic() - started


def find_ports(count: int) -> list[int]:
    """Free ports on this machine; all are held while they are looked for, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def measure_installed_mb(environment: Path) -> float | None:
    """Size in MB (10**6 bytes) of the files in a virtual environment's site-packages, without pip and setuptools.

    Those two come with the environment and are used by no server. None when there is no such environment.
    """
    folders = [entry for packages in environment.glob("lib/python*/site-packages") for entry in packages.iterdir()]
    kept = [folder for folder in folders if not folder.name.startswith(("pip", "setuptools", "pkg_resources"))]
    files = (path for entry in kept for path in ([entry] if entry.is_file() else entry.rglob("*")))
    size = sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())
    return size / 1e6 if folders else None
