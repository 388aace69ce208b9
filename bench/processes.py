"""Servers as processes: started, measured from outside, stopped. Linux only, since it reads /proc."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
"""Units of CPU time in /proc/PID/stat per second."""


@dataclass(frozen=True)
class Service:
    """A running server: a process and all that it started."""

    pid: int
    address: str
    """HOST:PORT."""

    def cpu_seconds(self) -> float:
        """CPU time so far, user and system, of all its processes that are alive."""
        fields = (read_stat(pid) for pid in list_tree(self.pid))
        return sum(int(stat[11]) + int(stat[12]) for stat in fields if stat) / TICKS

    def resident_mb(self) -> float:
        """Resident memory in MB (2**20 bytes), summed over its processes."""
        pages = 0
        for pid in list_tree(self.pid):
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
            except OSError:  # it ended meanwhile
                continue
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def read_stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the state on (proc(5): the third), or none when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets


def list_tree(root: int) -> list[int]:
    """Returns a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := read_stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree += children.get(pid, [])
    return tree


def read_busy_seconds() -> float:
    """CPU time so far of everything on this machine, user and system, in seconds (proc(5), stat)."""
    ticks = [int(field) for field in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS  # all but idle and waiting for disks


@contextmanager
def run_server(models: Path, flags: Sequence[str] = ()) -> Iterator[Service]:
    """Runs ``python -m server`` on a free port, with further flags; yields when it serves."""
    command = [sys.executable, "-m", "server", "--models", str(models), "--port", "0", "--log-level", "warning"]
    process = subprocess.Popen([*command, *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True)
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


def measure_installed_mb(environment: Path) -> float | None:
    """Size in MB (10**6 bytes) of the files in a virtual environment's site-packages, without pip and setuptools.

    Those two come with the environment and are used by no server. None when there is no such environment.
    """
    folders = [entry for packages in environment.glob("lib/python*/site-packages") for entry in packages.iterdir()]
    kept = [folder for folder in folders if not folder.name.startswith(("pip", "setuptools", "pkg_resources"))]
    files = (path for entry in kept for path in ([entry] if entry.is_file() else entry.rglob("*")))
    size = sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())
    return size / 1e6 if folders else None
