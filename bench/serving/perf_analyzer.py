"""Triton's perf_analyzer as it is published, asking this server by the Open Inference Protocol.

What it needs besides its environment (``make install-neighbours``) is Debian's package libb64-0d.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.neighbours import find_program

NEIGHBOUR = "perf_analyzer"
INPUT = "image"
WINDOWS = 3
"""It measures in windows and joins the last three."""


class LibraryMissingError(RuntimeError):
    """It cannot start here; the message says what is missing."""


def run_perf_analyzer(
    address: str,
    model: str,
    images: Sequence[bytes],
    clients: int,
    seconds: float,
    folder: Path,
    protocol: str = "grpc",
) -> dict[str, float]:
    """A closed loop.

    Args:
        address: HOST:PORT.
        model: name of the model.
        images: encoded images, sent in turns.
        clients: requests that are always on their way.
        seconds: length of the measurement, of which each window is a third.
        folder: where its input and output files may be.
        protocol: ``grpc`` or ``http``.

    Returns:
        Images a second as ``rate``, and ``p50_ms``, ``p90_ms`` and ``p99_ms``.

    Raises:
        FileNotFoundError: it is not installed.
        LibraryMissingError: a library that it needs is not.
        RuntimeError: it ended with an error, or a request failed; with what it said.
    """
    asked, told = folder / "input.json", folder / "output.csv"
    # It sends what it is given as it is, so each image is given with the length that elements of a BYTES tensor have.
    elements = [struct.pack("<I", len(image)) + image for image in images]
    entries = [{INPUT: {"b64": base64.b64encode(element).decode("ascii")}} for element in elements]
    asked.write_text(json.dumps({"data": entries}), "ascii")
    command = [
        *start_command(),
        "-m",
        model,
        "-i",
        protocol,
        "-u",
        address,
        "--input-data",
        str(asked),
        "-f",
        str(told),
    ]
    command += [
        "--shape",
        f"{INPUT}:1",
        "--concurrency-range",
        str(clients),
        "-p",
        str(round(1000 * seconds / WINDOWS)),
    ]
    # Three windows and no more, however much they differ: whether the machine is quiet enough is told by the rounds.
    command += ["--stability-percentage", "999", "--max-trials", str(WINDOWS)]
    done = subprocess.run(
        command, env=make_environment(), capture_output=True, text=True, timeout=60 + 10 * seconds, check=False
    )
    if done.returncode != 0 or not told.exists():
        raise RuntimeError(f"perf_analyzer on {model} at {address} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    with told.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    told.unlink()
    return {
        "rate": float(row["Inferences/Second"]),
        **{f"{percentile}_ms": float(row[f"{percentile} latency"]) / 1000 for percentile in ("p50", "p90", "p99")},
    }


def start_command() -> list[str]:
    """The program, after a look at whether it can start here."""
    program = str(find_program(NEIGHBOUR, "perf_analyzer"))
    done = subprocess.run([program, "--version"], env=make_environment(), capture_output=True, text=True, check=False)
    if "error while loading shared libraries" in done.stderr:
        missing = done.stderr.split("shared libraries: ", 1)[1].split(":", 1)[0]
        raise LibraryMissingError(f"perf_analyzer needs {missing} (Debian: apt install libb64-0d)")
    return [program]


def make_environment() -> dict[str, str]:
    """With the library of CUDA that it is linked to, which its environment has; it uses none of it here."""
    home = find_program(NEIGHBOUR).parent.parent
    libraries = [str(path) for path in home.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
