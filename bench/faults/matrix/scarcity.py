"""Too little of what a process needs: descriptors, processor, memory; and a clock that is wrong."""

from __future__ import annotations

import json
import math
import random
import re
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.faults.callers import LibraryCaller, close_all, connect, read_error
from bench.faults.history import OK
from bench.faults.images import make_png_bomb
from bench.faults.matrix.inputs import find_stated_mb
from bench.faults.places import wrap_limit
from bench.faults.rig import Fault, Rig
from bench.faults.server import Server
from bench.processes import read_peak
from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc
from server.process.children import run, start

MIB = 1024 * 1024
DESCRIPTORS = 64
KNOWN_ENDS = {OK, "DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"}
CLOCK = Path(__file__).resolve().with_name("clock.c")
HOUR = 3600
STACKS_MB = 50.0
"""Of six threads, 8 MiB each: those of the event loop's executor on two processors."""


def limit_descriptors(rig: Rig) -> None:
    """More connections than there are descriptors for."""
    with rig.stage(wrap=wrap_limit("n", DESCRIPTORS)) as scene:
        late: list[Any] = []
        with ExitStack() as stack:
            for _ in range(2 * DESCRIPTORS):
                channel = stack.enter_context(connect(scene.server.address))
                stub = stroke_pb2_grpc.StrokeServiceStub(channel)
                late.append(stub.Predict.future(pb.PredictRequest(image=rig.images[0]), timeout=3))
            ends = Counter(read_end(future) for future in late)
            scene.load.wait_answers(20)
        rig.check(
            set(ends) <= {OK, "DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"},
            f"{2 * DESCRIPTORS} newcomers: {dict(ends)}",
        )
        callers = rig.make_callers(LibraryCaller, scene.server.address, 1)
        ended = callers[0].call(rig.images[0], 10)
        close_all(callers)
        rig.check(ended.status == OK, f"once some are free a newcomer gets {ended.status}")


def read_end(future: Any) -> str:
    """The status of a call."""
    error = future.exception(60)
    return OK if error is None else read_error("", error).status


def hog_processors(rig: Rig) -> None:
    """A program that takes all it can get of a processor."""
    hogs = []
    try:
        with rig.stage(share=0.3, health=1.0) as scene:
            before = time.monotonic()
            hogs = [start([sys.executable, "-c", "while True: pass"])]
            scene.load.wait_answers(rig.choose(1000, 40), 120)
            alone, beside = (scene.load.find_latency(99, span) for span in ((0.0, before), (before, math.inf)))
            rig.verdict.note(f"p99 {1000 * alone:.0f} ms before, {1000 * beside:.0f} ms beside it")
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def limit_memory(rig: Rig) -> None:
    """All that callers can send at once, first to see what it takes, then with no more than is stated."""
    with rig.serve() as server:
        settle(rig, server)
        stated, idle = find_stated_mb(server), read_status(server.pid, "VmRSS")
        data = read_status(server.pid, "VmData")
        rush(rig, server)
        peak = read_peak(server.pid) * MIB / 1e6
        rig.check(peak <= stated, f"{idle:.0f} MB, with messages at its peak {peak:.0f} MB, stated {stated:.0f} MB")
        with_images = stated + find_image_mb(server)
        decode_large(rig, server)
        peak = read_peak(server.pid) * MIB / 1e6
        rig.check(peak <= with_images, f"with large images {peak:.0f} MB, stated {with_images:.0f} MB")
        back = rig.wait_memory(server, idle + 20)
        rig.check(back <= idle + 20, f"{back:.0f} MB afterwards")
    # RLIMIT_DATA counts what is private and writable whether or not it was ever touched (getrlimit(2)); so beyond
    # what an idle server has of that, it gets what it states that it may take on top, and the stacks of threads that
    # start later. A control group would count what is resident, but not everybody may make one.
    most = data + stated - idle + STACKS_MB
    rig.judges_log = False  # it says so where memory is short
    with rig.serve(wrap=wrap_limit("d", int(most * 1e6 / 1024))) as server:
        settle(rig, server)
        ends = rush(rig, server)
        codes = [life.code for life in server.lives]
        state = f"ended with {codes}" if codes else "runs"
        rig.check(not codes, f"with no more than that, {most:.0f} MB of data: {state}")
        allowed = {"IMAGE_TOO_LARGE", "MEMORY_SHORT", "QUEUE_FULL", "TOO_MANY_CALLS", "IMAGE_UNDECODABLE"}
        wrong = {reason for reason in ends if reason not in allowed}
        rig.check(not wrong, f"refused: {dict(ends)}")
        callers = rig.make_callers(LibraryCaller, server.address, 1)
        ended = callers[0].call(rig.images[0], 30)
        close_all(callers)
        rig.check(ended.status == OK, f"afterwards: {ended.status}")


def settle(rig: Rig, server: Server) -> None:
    """Lets a server judge some images."""
    callers = rig.make_callers(LibraryCaller, server.address, 2)
    for caller in callers:
        for image in rig.images:
            caller.call(image, 10)
    close_all(callers)


def read_status(pid: int, name: str) -> float:
    """A figure of /proc/PID/status (proc(5)), in MB of 10**6 bytes."""
    text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
    return int(match[1]) * 1024 / 1e6 if match else 0.0


def find_image_mb(server: Server) -> float:
    """What the server says that it may need besides while large images are decoded."""
    match = re.search(r"and (\d+) MB more", " ".join(server.banner))
    return float(match[1]) if match else 0.0


def rush(rig: Rig, server: Server) -> Counter[str]:
    """Streams of 15 MiB messages whose answers nobody takes, and images of 16 MiB from four connections; returns the
    reasons why those were refused."""
    over = threading.Event()
    padded = rig.images[0] + bytes(15 * MIB // 32 - len(rig.images[0]))
    message = pb.PredictBatchesRequest(requests=[pb.PredictRequest(image=padded)] * 32)
    noise = random.Random(0).randbytes(16 * MIB - 1024)

    def send() -> Iterator[pb.PredictBatchesRequest]:
        while not over.is_set():
            yield message

    with ExitStack() as stack:
        stubs = [stroke_pb2_grpc.StrokeServiceStub(stack.enter_context(connect(server.address))) for _ in range(20)]
        streams = [stub.PredictBatches(send(), timeout=60) for stub in stubs[: rig.choose(16, 4)]]
        calls = [
            stubs[16 + index % 4].Predict.future(pb.PredictRequest(image=noise), timeout=60)
            for index in range(rig.choose(100, 12))
        ]
        ends: Counter[str] = Counter()
        for call in calls:
            error: Any = call.exception(90)
            ends[read_error("", error).reason or read_error("", error).status if error is not None else OK] += 1
        over.set()
        for stream in streams:
            stream.cancel()
    return ends


def decode_large(rig: Rig, server: Server) -> None:
    """Images of 25 megapixel on every worker."""
    bomb = make_png_bomb(5000, 5000)
    with connect(server.address) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        calls = [stub.Predict.future(pb.PredictRequest(image=bomb), timeout=60) for _ in range(rig.choose(8, 2))]
        for call in calls:
            call.exception(90)


def step_clock(rig: Rig) -> None:
    """The wall clock, as the server sees it, is set an hour forth and back."""
    library, clock, audit = rig.folder / "clock.so", rig.folder / "clock", rig.folder / "audit.jsonl"
    try:
        run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(CLOCK), "-ldl"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        rig.verdict.skip("no C compiler for the library that sets a process's clock")
        return
    set_clock(clock, 0)
    environment = {"LD_PRELOAD": str(library), "BENCH_CLOCK": str(clock)}
    with rig.stage("--audit", str(audit), environment=environment) as scene:
        for step in (HOUR, 0, -HOUR, HOUR, -24 * HOUR, 0)[: rig.choose(6, 2)]:
            set_clock(clock, step)
            scene.load.wait_answers(rig.choose(200, 30))
            time.sleep(0.5)  # the log gathers lines
            seen = read_last_time(audit) - datetime.now(UTC).timestamp()
            rig.check(abs(seen - step) < 60, f"set to {step / HOUR:+g} h: its log is {seen / HOUR:+.2f} h off")


def set_clock(path: Path, seconds: int) -> None:
    """Sets the clock of a process that maps this file, at once."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(struct.pack("=q", seconds))


def read_last_time(audit: Path) -> float:
    """When the last line of an audit log says that it was written, in seconds since 1970."""
    line = json.loads(audit.read_text("utf-8").splitlines()[-1])
    return datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()


FAULTS = (
    Fault(
        "descriptors",
        "64 descriptors, and 128 connections more than that",
        "who is connected notices nothing; newcomers wait or fail; they get in once there is room",
        limit_descriptors,
    ),
    Fault("hog", "a program that takes all it can get of a processor", "nobody's call fails", hog_processors),
    Fault(
        "memory",
        "16 streams of 15 MiB messages that take no answer, 100 images of 16 MiB, 8 of 25 megapixel; again with no "
        "more memory than it states",
        "its peak is below what it states; it runs on; refused with a reason",
        limit_memory,
    ),
    Fault("clock", "the clock is set an hour forth and back, and a day back", "nobody notices", step_clock),
)
