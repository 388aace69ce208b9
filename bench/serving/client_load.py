"""One run of ``StrokeClient.predict_many``, and what it costs the process that makes it: a process of its own.

Uses nothing of the client but what it exports, as any caller does.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from bench.images import read_images
from bench.processes import ROOT, read_peak
from server.flags import LineParser
from server.process.children import run

NOISE_IMAGES = 20
SAMPLES = 20
"""How often memory is read in one run."""


@dataclass(frozen=True)
class ClientLoad:
    """What one run found."""

    count: int
    failures: int
    """Images without a prediction."""

    seconds: float
    cpu_ms: float
    """CPU time of the client's process for an image, user and system."""

    idle_mb: float
    """Resident memory before the run: connected, one image predicted, the images to send in memory. MB are 2**20."""

    peak_mb: float
    """Largest resident memory during the run."""

    resident_mb: list[float]
    """During the run, at equal distances, the last at its end."""


def make_noise(kilobytes: float) -> list[bytes]:
    """Grey PNGs of noise, which no encoder can shrink: of ``kilobytes`` (1,000 bytes) each, as good as exactly."""
    side = round((1000 * kilobytes) ** 0.5)
    source = np.random.default_rng(0)
    images = []
    for _ in range(NOISE_IMAGES):
        buffer = io.BytesIO()
        Image.fromarray(source.integers(0, 256, (side, side), np.uint8)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    return images


def read_resident() -> float:
    """Resident memory of this process in MB."""
    return float(psutil.Process().memory_info().rss / 2**20)


def forget_peak() -> None:
    """Starts the highest resident memory anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def run_predict_many(address: str, images: Sequence[bytes], count: int, in_flight: int | None) -> ClientLoad:
    """Predicts ``count`` images, the given ones in turn.

    Args:
        address: where the server listens, HOST:PORT.
        images: encoded.
        count: how many to predict.
        in_flight: as ``predict_many`` takes it; None: its default.
    """
    from client import PredictionFailure, StrokeClient

    every = max(1, count // SAMPLES)
    failures, resident = 0, []
    with StrokeClient(address) as client:
        client.predict(images[0])
        idle = read_resident()
        forget_peak()
        endless = (images[number % len(images)] for number in range(count))
        predict_many = client.predict_many if in_flight is None else partial(client.predict_many, in_flight=in_flight)
        started, cpu = time.monotonic(), time.process_time()
        for number, result in enumerate(predict_many(endless), start=1):
            failures += isinstance(result, PredictionFailure)
            if number % every == 0:
                resident.append(read_resident())
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    return ClientLoad(count, failures, seconds, 1000 * cpu / count, idle, read_peak(os.getpid()), resident)


def spawn_client(address: str, images: Path | float, count: int, in_flight: int | None) -> ClientLoad:
    """``run_predict_many`` in another process; ``images`` is a folder, or the kilobytes of images of noise."""
    source = ["--images", str(images)] if isinstance(images, Path) else ["--noise-kb", str(images)]
    window = [] if in_flight is None else ["--in-flight", str(in_flight)]
    command = [sys.executable, "-m", "bench.serving.client_load", address, *source, "--count", str(count), *window]
    result = run(command, cwd=ROOT, capture_output=True, text=True, timeout=300 + count)
    if result.returncode != 0:
        raise RuntimeError(f"the client of {address} failed:\n{result.stderr[-2000:]}")
    return ClientLoad(**json.loads(result.stdout))


def main(argv: Sequence[str] | None = None) -> int:
    """Makes one run and prints what it found as JSON."""
    parser = LineParser("python -m bench.serving.client_load", "One run; prints JSON.")
    parser.add_argument("address", help="HOST:PORT")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="folder of images")
    source.add_argument("--noise-kb", type=float, help="images of noise, of so many kilobytes each")
    parser.add_argument("--count", type=int, default=1000, help="images to predict (default: 1000)")
    parser.add_argument("--in-flight", type=int, help="as predict_many takes it (default: its own)")
    options = parser.parse_args(argv)
    images = read_images(options.images) if options.images else make_noise(options.noise_kb)
    print(json.dumps(asdict(run_predict_many(options.address, images, options.count, options.in_flight))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
