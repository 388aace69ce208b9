"""A command as a process of its own, and what it takes."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from bench.processes import ROOT, watch_peak
from server.process.children import start


@dataclass(frozen=True)
class Measured:
    """What a command took and said."""

    code: int
    """Its exit code."""

    seconds: float
    """Wall clock, from start to exit."""

    cpu_seconds: float
    """User and system, of all its processes."""

    peak_mb: float
    """Largest resident memory of the first of them, in MB (2**20 bytes)."""

    printed: str
    last_words: str
    """The last line of its standard error."""

    def describe(self) -> dict[str, float]:
        """What it took, as pages record it."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_mb": self.peak_mb}


def measure_command(command: Sequence[str]) -> Measured:
    """Runs a command in the checkout's root until it ends."""
    before, started = read_child_seconds(), time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = start(command, cwd=ROOT, stdout=out, stderr=errors)
        peak = watch_peak(process)
        seconds, cpu = time.monotonic() - started, read_child_seconds() - before
        printed, log = (read_again(file) for file in (out, errors))
    return Measured(process.returncode, seconds, cpu, peak, printed, (log.strip().splitlines() or [""])[-1])


def read_again(file: IO[bytes]) -> str:
    """All that was written into a file."""
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def read_child_seconds() -> float:
    """CPU time, user and system, of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
