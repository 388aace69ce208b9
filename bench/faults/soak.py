"""A load that is held for long, with a few damaged images and callers who go away: what grows then is a leak."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.faults.callers import connect
from bench.faults.images import damage
from bench.faults.rig import Fault, Rig, Scale, Shared
from bench.faults.witness import Sample, look
from bench.report.machine import say
from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc

SHARE = 0.5
DEADLINE = 10.0
SAMPLE_SECONDS = 2.0
GONE_SECONDS = 2.0
"""Between two callers who go away."""

MOST_MB_AN_HOUR = 1.0
"""Promise 6."""

SOAK = Fault(
    "soak", "a load that is held", "the second half grows by < 1 MB/h, no descriptor, no thread", lambda rig: None
)


def soak(scale: Scale, minutes: float, *, as_json: bool = False) -> int:
    """Holds a load and prints the slopes of the second half. Returns 0 when the promise was kept, otherwise 1."""
    with tempfile.TemporaryDirectory(prefix="strokeserve-soak-") as folder:
        rig = Rig(SOAK, Path(folder), scale, Shared())
        found = run(rig, 60 * minutes)
        verdict = rig.judge()
    say(f"{SOAK.done} for {minutes:g} minutes; promised: {SOAK.promise}; seen: {verdict.describe()}")
    print(json.dumps(found, indent=1) if as_json else verdict.describe())
    return 0 if verdict.is_kept else 1


def run(rig: Rig, seconds: float) -> dict[str, float]:
    """Holds a load with one damaged image in a hundred and a caller that goes away now and then."""
    images = list(rig.images) * 5
    images.append(damage(rig.random, rig.images))
    rig.golden.add_image(images[-1])
    stopping = threading.Event()
    samples: list[Sample] = []
    with rig.serve() as server:
        leaver = threading.Thread(target=leave_again_and_again, args=(server.address, rig.images, stopping))
        with rig.load(server, share=SHARE, images=images, deadline=DEADLINE) as load:
            leaver.start()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sample = look(server.pid)
                if sample is not None:
                    samples.append(sample)
                time.sleep(min(SAMPLE_SECONDS, seconds / 50))
            stopping.set()
            leaver.join()
            load.stop()
        rig.check(not server.lives, "it ran from the beginning to the end")
    wrong = {w: n for w, n in load.count_failures().items() if not w.startswith("INVALID_ARGUMENT")}
    rig.check(not wrong, f"{len(load.calls)} calls, failed but for damaged images: {wrong or 'none'}")
    slopes = find_slopes(samples)
    rig.check(slopes["mb_an_hour"] < rig.allow(MOST_MB_AN_HOUR), f"resident memory {slopes['mb_an_hour']:+.2f} MB/h")
    for name in ("descriptors", "threads"):
        rig.check(slopes[name] < 1, f"{name} {slopes[name]:+.1f} over the second half")
    return slopes


def find_slopes(samples: Sequence[Sample]) -> dict[str, float]:
    """How much grows in the second half: a line through all samples of it (least squares).

    Returns:
        ``mb_an_hour`` of resident memory, and ``descriptors`` and ``threads`` over the whole half.
    """
    half = samples[len(samples) // 2 :]
    times = np.array([sample.at for sample in half]) - half[0].at
    columns: dict[str, tuple[list[float], float]] = {
        "mb_an_hour": ([sample.resident_mb for sample in half], 3600.0),
        "descriptors": ([sample.descriptors for sample in half], float(times[-1])),
        "threads": ([sample.threads for sample in half], float(times[-1])),
    }
    return {name: float(np.polyfit(times, values, 1)[0] * span) for name, (values, span) in columns.items()}


def leave_again_and_again(address: str, images: Sequence[bytes], stopping: threading.Event) -> None:
    """Makes connections and calls that are given up."""
    while not stopping.wait(GONE_SECONDS):
        with connect(address) as channel:
            stub = stroke_pb2_grpc.StrokeServiceStub(channel)
            calls = [stub.Predict.future(pb.PredictRequest(image=image), timeout=DEADLINE) for image in images[:4]]
            stopping.wait(0.005)
            for call in calls:
                call.cancel()
