"""What callers send: too much, too slow to read, damaged, or nothing of this API."""

from __future__ import annotations

import random
import re
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import grpc

from bench.faults.callers import Caller, LibraryCaller, StubCaller, close_all, connect, read_error
from bench.faults.history import OK
from bench.faults.images import damage, make_slow_images
from bench.faults.proxy import Proxy
from bench.faults.rig import Fault, Rig, Scene
from bench.faults.server import Server
from bench.faults.witness import read_cpu_seconds
from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc

MIB = 1024 * 1024
ALLOWED = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DATA_LOSS"}
"""Promise 7."""

HOLD_SECONDS = 2.0
"""Most that an image may hold a worker."""

GROWTH_MB = 20.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def find_stated_mb(server: Server) -> float:
    """What the server says that it may come to need with what callers send."""
    match = re.search(r"at most (\d+) MB", " ".join(server.banner))
    return float(match[1]) if match else 0.0


def send_too_much(rig: Rig) -> None:
    """Messages and metadata beyond the limits, and a compressed bomb."""
    noise = rig.random.randbytes(8 * MIB)
    with rig.stage(growth_mb=GROWTH_MB) as scene, connect(scene.server.address) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        gzip = grpc.Compression.Gzip
        many = tuple((f"k{number}", "v" * 10) for number in range(1000))
        sent: dict[str, tuple[bytes, dict[str, Any]]] = {
            "8 MiB of noise": (noise, {}),
            "8 MiB + 1": (noise + b"x", {}),
            "24 MiB + 64 KiB + 1": (bytes(24 * MIB + 64 * 1024 + 1), {}),
            "64 MiB": (bytes(64 * MIB), {}),
            f"gzip of {rig.choose(256, 64)} MiB": (bytes(rig.choose(256, 64) * MIB), {"compression": gzip}),
            "17 KB of metadata": (rig.images[0], {"metadata": (("key", "v" * 17_000),)}),
            "1,000 keys": (rig.images[0], {"metadata": many}),
        }
        seen: Counter[str] = Counter()
        wrong = []
        for name, (image, options) in sent.items():
            for _ in range(rig.choose(3, 1)):
                try:
                    stub.Predict(pb.PredictRequest(image=image), timeout=30, **options)
                    status = OK
                except grpc.RpcError as error:
                    status = read_error("", error).status
                seen[status] += 1
                if status not in ALLOWED and not (status == OK and name == "1,000 keys"):
                    wrong.append(f"{name}: {status}")
        rig.check(not wrong, f"{dict(seen)}{'; ' if wrong else ''}{', '.join(wrong)}")
        stated = find_stated_mb(scene.server)
    peak = scene.witness.peak_mb
    rig.check(peak <= stated, f"peak of {peak:.0f} MB, stated {stated:.0f} MB")


def send_slow_images(rig: Rig) -> None:
    """Images of 8 MiB at most that make a reader work."""
    slowest, wrong = ("", 0.0), []
    with rig.serve() as server:
        (caller,) = rig.make_callers(StubCaller, server.address, 1)
        caller.call(rig.images[0], 10)
        for name, image in list(make_slow_images().items())[:: rig.choose(1, 4)]:
            rig.golden.add_image(image)
            cpu = read_cpu_seconds(server.pid)
            ended = caller.call(image, 30)
            cpu = read_cpu_seconds(server.pid) - cpu
            slowest = max(slowest, (name, cpu), key=lambda pair: pair[1])
            if cpu > HOLD_SECONDS or ended.status not in ALLOWED | {OK}:
                wrong.append(f"{name}: {ended.status} {ended.reason} after {cpu:.1f} s of CPU")
        caller.close()
    text = f"the slowest, {slowest[0]}, took {1000 * slowest[1]:.0f} ms of CPU"
    rig.check(not wrong, "; ".join([text, *wrong]))


def send_damaged(rig: Rig) -> None:
    """Damaged images, ten to a good one, from four connections."""
    number = rig.choose(10_000, 300)
    with rig.stage(share=0.1, growth_mb=GROWTH_MB) as scene:
        callers = rig.make_callers(StubCaller, scene.server.address, 4)
        seeds = [rig.random.randrange(2**32) for _ in callers]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(partial(send_mixed, rig, number // 4), callers, seeds))
        close_all(callers)
    ends: Counter[str] = sum((ends for ends, _, _ in found), Counter())
    slowest = max(seconds for _, seconds, _ in found)
    good = sum(count for _, _, count in found)
    wrong = {status for status in ends if status not in ALLOWED | {OK}}
    rig.check(
        not wrong and slowest <= rig.allow(HOLD_SECONDS),
        f"{ends.total()} damaged: {dict(ends)}, the slowest after {slowest:.2f} s",
    )
    rig.check(good == number // 4 // 10 * 4, f"{good} good ones between them, all answered")


def send_mixed(rig: Rig, number: int, caller: Caller, seed: int) -> tuple[Counter[str], float, int]:
    """Sends damaged images with good ones among them; returns how the damaged ones ended, the longest time that one
    took, and the good ones that were answered."""
    source = random.Random(seed)
    ends: Counter[str] = Counter()
    slowest, good = 0.0, 0
    for index in range(number):
        image = damage(source, rig.images)
        rig.golden.add_image(image)
        began = time.monotonic()
        ended = send_patiently(caller, image)
        slowest = max(slowest, time.monotonic() - began)
        ends[ended] += 1
        if index % 10 == 9:
            good += send_patiently(caller, source.choice(rig.images)) == OK
    return ends, slowest, good


def send_patiently(caller: Caller, image: bytes) -> str:
    """Sends an image again while the queue is full, and returns the status."""
    for _ in range(50):
        ended = caller.call(image, 10)
        if ended.reason not in ("QUEUE_FULL", "MEMORY_SHORT"):
            return ended.status
        time.sleep(0.1)
    return ended.status


def send_garbage(rig: Rig) -> None:
    """Bytes that are no gRPC, and messages that are none of this API."""
    times = rig.choose(300, 30)
    with rig.stage(growth_mb=GROWTH_MB) as scene:
        for index in range(times):
            send_bytes(scene.server, make_garbage(rig, index))
        rig.verdict.note(f"{times} connections with random bytes, HTTP/1.1 and broken frames")
        send_messages(rig, scene)
        scene.load.wait_answers(20)


def make_garbage(rig: Rig, index: int) -> bytes:
    """Something that is said on a connection."""
    noise = rig.random.randbytes(rig.random.randrange(1, 4000))
    frame = rig.random.randrange(2**24).to_bytes(3, "big") + rig.random.randbytes(6)
    return (
        noise,
        b"GET / HTTP/1.1\r\nHost: box\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: box\r\nContent-Length: 100000000\r\n\r\n" + noise,
        PREFACE + noise,
        PREFACE + bytes(9) + frame + noise,
        PREFACE[: rig.random.randrange(len(PREFACE))],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise,
    )[index % 7]


def send_bytes(server: Server, data: bytes) -> None:
    """Says something on a connection, and hears what comes."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=0.2) as connection, suppress(OSError):
        connection.sendall(data)
        connection.recv(4096)


def send_messages(rig: Rig, scene: Scene) -> None:
    """Messages that cannot be read, methods and services that are not there."""
    known = {"INVALID_ARGUMENT", "UNIMPLEMENTED"}
    seen: Counter[str] = Counter()
    with connect(scene.server.address) as channel:
        for method in ("Predict", "GetModel", "Forget", "../Predict"):
            call = channel.unary_unary(f"/stroke.v1.StrokeService/{method}")
            for _ in range(rig.choose(25, 5)):
                try:
                    call(b"\xff" + rig.random.randbytes(50), timeout=10)
                except grpc.RpcError as error:
                    seen[read_error("", error).status] += 1
    rig.check(set(seen) <= known, f"messages of noise: {dict(seen)}")


def alter_on_the_way(rig: Rig) -> None:
    """A network that flips bits of what is sent, in plain text."""
    number = rig.choose(1000, 100)
    ends: Counter[str] = Counter()
    with rig.stage(share=0.1) as scene, Proxy(scene.server.address, source=rig.random) as proxy:
        for _ in range(number // 20):  # each with a connection of its own
            (caller,) = rig.make_callers(LibraryCaller, proxy.address, 1)
            for image in rig.images[:20] * (20 // len(rig.images[:20]) or 1):
                ended = caller.call(image, 3)
                ends[ended.reason or ended.status] += 1
            caller.close()
        rig.check(proxy.flips > 0 and ends[OK] > 0, f"{proxy.flips} bits flipped, {ends.total()} calls: {dict(ends)}")


FAULTS = (
    Fault(
        "oversize",
        "images and messages beyond the limits, a gzip bomb, 17 KB and 1,000 keys of metadata",
        "INVALID_ARGUMENT or RESOURCE_EXHAUSTED; memory below what is stated; nobody notices",
        send_too_much,
        in_smoke=True,
    ),
    Fault(
        "slow-images",
        "8 MiB of APP1, iCCP, COM or text segments, of fill bytes, progressive passes, a bomb of 25 megapixel",
        "none holds a worker for > 2 s of CPU",
        send_slow_images,
        in_smoke=True,
    ),
    Fault(
        "damaged",
        "10,000 damaged images, ten to a good one, from 4 connections",
        "INVALID_ARGUMENT, RESOURCE_EXHAUSTED, DATA_LOSS or the right answer, each within 2 s; the good ones are "
        "answered",
        send_damaged,
        in_smoke=True,
    ),
    Fault(
        "altered",
        "a network that flips bits of what is sent, in plain text",
        "no answer is wrong for the bytes that were sent; nobody else notices",
        alter_on_the_way,
    ),
    Fault(
        "garbage",
        "random bytes, HTTP/1.1, TLS and broken frames on the port; messages and methods that are none",
        "nobody notices; INVALID_ARGUMENT or UNIMPLEMENTED",
        send_garbage,
        in_smoke=True,
    ),
)
