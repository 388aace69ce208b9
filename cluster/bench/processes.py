"""What a group of processes uses: CPU time and memory."""

from __future__ import annotations

from contextlib import suppress

import psutil


def list_family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


class Meter:
    """CPU time of a process and its descendants, those included that have come since."""

    def __init__(self, pid: int) -> None:
        """Begins now."""
        self._pid = pid
        self._before = {process: read_seconds(process) for process in list_family(pid)}

    def read(self) -> float:
        """Seconds since the beginning; of processes that have ended since, nothing."""
        return sum(read_seconds(process) - self._before.get(process, 0.0) for process in list_family(self._pid))


def read_seconds(process: psutil.Process) -> float:
    """CPU time so far, user and system; 0 of one that has ended."""
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def read_pss_mb(pid: int) -> tuple[float, int]:
    """Memory of a process and its descendants in MB (2**20), what they share counted once, and how many they are."""
    family, total = list_family(pid), 0.0
    for process in family:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 2**20, len(family)
