"""Callers who take places and send nothing, who are many, or who go away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.faults.callers import HINT_KEY, connect, read_error
from bench.faults.load import wait_until
from bench.faults.proxy import Proxy
from bench.faults.rig import Fault, Rig, Scene
from bench.processes import ROOT, find_ports
from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc
from server.process.children import start

PREDICT = "/stroke.v1.StrokeService/Predict"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
SLOTS = {PREDICT: 1024, CHECK: 512, WATCH: 512}
"""Places that the server has for calls of each kind (``docs/limits.md``)."""

HANDSHAKE_SECONDS = 10.0
MESSAGE_SECONDS = 30.0
"""When the server gives up what says nothing."""

GROWTH_MB = 20.0
"""Python's own allocator keeps some of what was used once."""


def hold_silent(rig: Rig) -> None:
    """Connections on which nothing is ever said."""
    number = rig.choose(500, 100)
    with rig.stage(growth_mb=GROWTH_MB) as scene:
        host, _, port = scene.server.address.rpartition(":")
        sockets = [socket.create_connection((host, int(port))) for _ in range(number)]
        began = time.monotonic()
        scene.load.wait_answers(30)
        if not rig.scale.is_smoke:
            closed = wait_until(lambda: all(map(is_closed, sockets)), rig.allow(HANDSHAKE_SECONDS + 5))
            took = time.monotonic() - began
            rig.check(closed, f"{number} silent connections, all closed after {took:.0f} s")
        for one in sockets:
            one.close()


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection on which it has sent little."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def hold_headers(rig: Rig) -> None:
    """Calls that begin and whose message does not come: all that the server has places for, on one connection and on
    four."""
    over = threading.Event()

    def send_nothing() -> Iterator[bytes]:
        over.wait(120)
        return
        yield

    with rig.stage(growth_mb=2 * GROWTH_MB) as scene, ExitStack() as stack:
        stack.callback(over.set)
        for connections in (1, 4):
            for method, slots in SLOTS.items():
                each = slots // connections // rig.choose(1, 16)
                calls = []
                for _ in range(connections):
                    call = stack.enter_context(connect(scene.server.address)).stream_unary(method)
                    calls += [call.future(send_nothing(), timeout=60) for _ in range(each)]
                rig.check(
                    scene.load.wait_answers(10, rig.allow(5)),
                    f"{len(calls)} of {method.rpartition('/')[2]} on {connections}: answers go on",
                )
        over.set()


def send_slowly(rig: Rig) -> None:
    """Messages that come byte by byte."""
    number = rig.choose(20, 5)
    with (
        rig.stage(growth_mb=GROWTH_MB) as scene,
        Proxy(scene.server.address, rate=1.0) as proxy,
        ExitStack() as stack,
    ):
        began = time.monotonic()
        futures = []
        for image in (rig.images * number)[:number]:
            stub = stroke_pb2_grpc.StrokeServiceStub(stack.enter_context(connect(proxy.address)))
            futures.append(stub.Predict.future(pb.PredictRequest(image=image), timeout=90))
        scene.load.wait_answers(30)
        if not rig.scale.is_smoke:
            ended = wait_until(lambda: all(f.done() for f in futures), rig.allow(MESSAGE_SECONDS + 10))
            reasons = Counter(read_error("", future.exception()).reason for future in futures if future.done())
            rig.check(ended, f"{number} of 1 byte/s ended after {time.monotonic() - began:.0f} s: {dict(reasons)}")
        for future in futures:
            future.cancel()


def watch_health(rig: Rig) -> None:
    """Health watches that are opened and cancelled."""
    number = rig.choose(10_000, 800)

    def watch(part: int, address: str) -> None:
        with connect(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for index in range(number // 4):
                name = f"{part}-{index}" * 60 if index % 2 else ""
                call = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60)
                next(call)
                call.cancel()

    with rig.stage(growth_mb=GROWTH_MB) as scene, ThreadPoolExecutor(4) as pool:
        list(pool.map(watch, range(4), [scene.server.address] * 4))
    rig.verdict.note(f"{number} watches, half of them of names of their own")


def call_at_once(rig: Rig) -> None:
    """Many calls at once on one connection: each ends, with an answer or with a hint when to come again."""
    with rig.stage(share=0.1) as scene, connect(scene.server.address) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        ends: Counter[str] = Counter()
        hints = []
        for _ in range(rig.choose(10, 2)):
            futures = [
                stub.Predict.future(pb.PredictRequest(image=image), timeout=30) for image in (rig.images * 12)[:200]
            ]
            for future in futures:
                error: Any = future.exception(60)
                ended = read_error("", error) if error is not None else None
                ends[f"{ended.status} {ended.reason}".strip() if ended else "OK"] += 1
                if ended is not None:
                    hints.append(int(dict(error.trailing_metadata() or ()).get(HINT_KEY, 0)))
        wrong = {what for what in ends if what != "OK" and not what.startswith("RESOURCE_EXHAUSTED ")}
        rig.check(
            not wrong and all(0 < hint < 10_000 for hint in hints), f"bursts of 200: {dict(ends)}, all with a hint"
        )


LEAVE = """
import sys, grpc
from proto import stroke_pb2 as pb, stroke_pb2_grpc
image = open(sys.argv[2], "rb").read()
channel = grpc.insecure_channel(sys.argv[1])
stub = stroke_pb2_grpc.StrokeServiceStub(channel)
stub.Predict(pb.PredictRequest(image=image), timeout=30)
calls = [stub.Predict.future(pb.PredictRequest(image=image), timeout=30) for _ in range(20)]
print("ready", flush=True)
calls[-1].exception()
input()
"""
"""A caller with twenty calls on their way."""


def leave(rig: Rig) -> None:
    """Callers who cancel, whose connection is reset, or who are killed."""
    with rig.stage("--metrics-port", str(find_ports(1)[0]), share=0.2, growth_mb=GROWTH_MB) as scene:
        cancel(rig, scene, rig.choose(500, 60))
        reset(rig, scene, rig.choose(100, 10))
        kill_callers(rig, scene, rig.choose(25, 2))
        answered = scene.load.wait_answers(20, rig.allow(10))
        rig.check(answered, "answers go on")


def cancel(rig: Rig, scene: Scene, number: int) -> None:
    """Cancels calls after some milliseconds."""
    with connect(scene.server.address) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        ends: Counter[str] = Counter()
        for index in range(number):
            image = rig.images[index % len(rig.images)]
            future = stub.Predict.future(pb.PredictRequest(image=image), timeout=30)
            rig.pause(0.0, 0.01)
            future.cancel()
            ends["cancelled" if future.cancelled() else "ended before"] += 1
    rig.verdict.note(f"{number} calls: {dict(ends)}")


def reset(rig: Rig, scene: Scene, number: int) -> None:
    """Resets connections with five calls on each."""
    with Proxy(scene.server.address) as proxy:
        for _ in range(number):
            with connect(proxy.address) as channel:
                stub = stroke_pb2_grpc.StrokeServiceStub(channel)
                futures = [stub.Predict.future(pb.PredictRequest(image=i), timeout=30) for i in rig.images[:5]]
                rig.pause(0.0, 0.03)
                proxy.reset()
                for future in futures:
                    future.cancel()
    rig.verdict.note(f"{number} connections reset with 5 calls each")


def kill_callers(rig: Rig, scene: Scene, number: int) -> None:
    """Kills processes with twenty calls on their way."""
    path = rig.folder / "image"
    path.write_bytes(rig.images[0])
    for _ in range(number):
        process = start(
            [sys.executable, "-c", LEAVE, scene.server.address, str(path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stdin.close()
    rig.verdict.note(f"{number} processes killed with 20 calls each")


FAULTS = (
    Fault(
        "silent",
        "500 connections on which nothing is said",
        "nobody notices; health within 200 ms; all are closed by the handshake's 10 s",
        hold_silent,
    ),
    Fault(
        "headers",
        "calls without a message: Predict, Health/Check, Health/Watch, from 1 and from 4 connections",
        "nobody notices; health within 200 ms; descriptors and threads come back",
        hold_headers,
        in_smoke=True,
    ),
    Fault(
        "slow-body",
        "20 messages that come at 1 byte/s",
        "nobody notices; health within 200 ms; they end with MESSAGE_LATE after 30 s",
        send_slowly,
    ),
    Fault(
        "watches",
        "10,000 health watches opened and cancelled, half of them of names of their own",
        "nobody notices; memory, descriptors and threads come back",
        watch_health,
        in_smoke=True,
    ),
    Fault(
        "at-once",
        "200 calls at once on one connection, ten times",
        "each is answered, or refused with RESOURCE_EXHAUSTED, a reason and a hint",
        call_at_once,
        in_smoke=True,
    ),
    Fault(
        "gone",
        "callers cancel (500), are reset (100 connections) and killed (25 processes) with calls on their way",
        "nobody notices; memory, descriptors and threads come back",
        leave,
    ),
)
