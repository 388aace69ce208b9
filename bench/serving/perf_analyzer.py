"""Triton's perf_analyzer as it is published, asking this server by the Open Inference Protocol.

What it needs besides its environment (``make install-neighbours``) is Debian's package libb64-0d.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.neighbours import find_program
from server.process.children import run

NEIGHBOUR = "perf_analyzer"
INPUT = "image"
WINDOWS = 3
"""It measures in windows, in each of which requests have to end, and joins the last three."""


class LibraryMissingError(RuntimeError):
    """It cannot start here; the message says what is missing."""


@dataclass(frozen=True)
class Until:
    """When a load ends: after a time, or after a number of requests."""

    seconds: float = 0.0
    requests: int = 0

    def list_flags(self) -> list[str]:
        """As perf_analyzer takes it."""
        if self.requests:
            return ["--request-count", str(self.requests)]
        window_ms = round(1000 * self.seconds / WINDOWS)
        # Three windows and no more, however much they differ: how quiet the machine was is told by the rounds.
        return ["-p", str(window_ms), "--stability-percentage", "999", "--max-trials", str(WINDOWS)]


def run_perf_analyzer(
    address: str, model: str, images: Sequence[bytes], clients: int, until: Until, protocol: str = "grpc"
) -> dict[str, float]:
    """A closed loop.

    Args:
        address: HOST:PORT.
        model: name of the model.
        images: encoded images, sent in turns.
        clients: requests that are always on their way.
        until: when it ends.
        protocol: ``grpc`` or ``http``.

    Returns:
        Images a second as ``rate``, and ``p50_ms``, ``p90_ms`` and ``p99_ms``.

    Raises:
        FileNotFoundError: it is not installed.
        LibraryMissingError: a library that it needs is not.
        RuntimeError: it ended with an error, or a request failed; with what it said.
    """
    with TemporaryDirectory() as folder:
        asked, told = Path(folder, "input.json"), Path(folder, "output.csv")
        asked.write_text(json.dumps({"data": [encode_input(image) for image in images]}), "ascii")
        command = [*start_command(), "-m", model, "-i", protocol, "-u", address, "--concurrency-range", str(clients)]
        command += ["--input-data", str(asked), "--shape", f"{INPUT}:1", "-f", str(told), *until.list_flags()]
        limit = 120 + 10 * until.seconds
        done = run(command, env=make_environment(), capture_output=True, text=True, timeout=limit)
        if done.returncode != 0 or not told.exists():
            said = done.stdout[-2000:] + done.stderr[-2000:]
            raise RuntimeError(f"perf_analyzer on {model} at {address} failed:\n{said}")
        (row,) = csv.DictReader(told.read_text("utf-8").splitlines())
    times = {f"{percentile}_ms": float(row[f"{percentile} latency"]) / 1000 for percentile in ("p50", "p90", "p99")}
    return {"rate": float(row["Inferences/Second"]), **times}


def encode_input(image: bytes) -> dict[str, dict[str, str]]:
    """The input of one request. It is sent as it is, so with the length that elements of a BYTES tensor begin with."""
    element = struct.pack("<I", len(image)) + image
    return {INPUT: {"b64": base64.b64encode(element).decode("ascii")}}


def start_command() -> list[str]:
    """The program, after a look at whether it can start here."""
    program = str(find_program(NEIGHBOUR, "perf_analyzer"))
    done = run([program, "--version"], env=make_environment(), capture_output=True, text=True, check=False)
    if "error while loading shared libraries" in done.stderr:
        missing = done.stderr.split("shared libraries: ", 1)[1].split(":", 1)[0]
        raise LibraryMissingError(f"perf_analyzer needs {missing} (Debian: apt install libb64-0d)")
    return [program]


def make_environment() -> dict[str, str]:
    """With the library of CUDA that it is linked to, which its environment has; it uses none of it here."""
    home = find_program(NEIGHBOUR).parent.parent
    libraries = [str(path) for path in home.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
