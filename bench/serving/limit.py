"""The limit: decode and ``run`` in a bare loop, without a server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from server.images.preprocess import load_pixels
from server.models.runtime import OnnxModel


@dataclass(frozen=True)
class BareLoop:
    """What one bare loop found."""

    latencies_ms: list[float]
    """Of each image that was done in time."""

    seconds: float

    cpu_ms: float
    """CPU time of the process for an image, user and system."""


def run_bare(model: OnnxModel, images: Sequence[bytes], threads: int, seconds: float) -> BareLoop:
    """Decodes and judges images in ``threads`` threads, each with one thread inside a run."""
    cpu = time.process_time()
    end = time.monotonic() + seconds

    def loop(index: int) -> list[float]:
        latencies: list[float] = []
        while True:
            started = time.monotonic()
            pixels = load_pixels(images[(17 * index + len(latencies)) % len(images)], model.input_format)
            model.run(pixels.array[np.newaxis])
            if (finished := time.monotonic()) > end:
                return latencies
            latencies.append(1000 * (finished - started))

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(loop, range(threads)))
    latencies = [latency for result in results for latency in result]
    done = len(latencies) + threads  # each thread finished one image after the end
    return BareLoop(latencies, seconds, 1000 * (time.process_time() - cpu) / done)


def measure_run_ms(model: OnnxModel, images: Sequence[bytes], seconds: float) -> float:
    """Shortest milliseconds of ``run`` alone on a decoded image, one thread: set against a peak, noise only adds."""
    pixels = load_pixels(images[0], model.input_format).array[np.newaxis]
    end = time.monotonic() + seconds
    best = float("inf")
    while time.monotonic() < end:
        started = time.perf_counter()
        model.run(pixels)
        best = min(best, time.perf_counter() - started)
    return 1000 * best
