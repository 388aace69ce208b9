"""Servers that end, or stand still, while calls are on their way."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.faults.callers import StubCaller, connect
from bench.faults.load import HeldLoad
from bench.faults.rig import Fault, Rig
from bench.faults.server import Server, measure_gaps
from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc

READY_SECONDS = 5.0
"""Promise 4."""

DRAIN_SECONDS = 10.0
LOST = {"UNAVAILABLE", "CANCELLED"}
"""What a caller that repeats nothing may see of a server that ends."""


def end_again_and_again(rig: Rig, server: Server, loads: list[HeldLoad], number: int, times: int) -> bool:
    """Ends a server by a signal while calls are on their way, so many times; returns whether it always came back."""
    for _ in range(times):
        rig.pause(0.2, 0.8)
        loads[0].wait_in_flight()
        if not server.replace(number) or not all(load.wait_answers(5) for load in loads):
            return False
    return True


def check_gaps(rig: Rig, server: Server) -> None:
    """Promises how soon it serves again."""
    gaps = measure_gaps(server)
    longest = max(gaps, default=float("inf"))
    rig.check(longest <= rig.allow(READY_SECONDS), f"{len(gaps)} restarts, ready again after {longest:.1f} s at most")


def check_raw(rig: Rig, load: HeldLoad) -> None:
    """Promises what callers see that repeat nothing."""
    failures = load.count_failures()
    others = {what: number for what, number in failures.items() if what.partition(" ")[0] not in LOST}
    rig.check(not others, f"{failures.total()} of {len(load.calls)} without repetitions, {dict(failures)}")


def kill(rig: Rig) -> None:
    """SIGKILL in flight."""
    with (
        rig.serve() as server,
        rig.load(server, share=0.4) as load,
        rig.load(server, share=0.1, kind=StubCaller) as raw,
    ):
        came_back = end_again_and_again(rig, server, [load, raw], signal.SIGKILL, rig.choose(10, 2))
        rig.check(came_back, "it came back each time" if came_back else "it did not come back")
        check_gaps(rig, server)
        load.stop()
        raw.stop()
    rig.check_failures(load)
    check_raw(rig, raw)


def kill_starting(rig: Rig) -> None:
    """SIGKILL while it starts, with a cache to fill and a socket to bind; then it has to start."""
    from bench.faults.models import make_large_model

    models = make_large_model(rig.scale.models, rig.folder / "models")
    socket = rig.folder / "run" / "server.sock"
    socket.parent.mkdir(mode=0o700)
    flags = ("--host", f"unix:{socket}", "--audit", str(rig.folder / "audit.jsonl"))
    with rig.start(*flags, models=models) as server:
        number = rig.choose(15, 3)
        for count in range(1, number + 1):
            rig.pause(0.1, 1.0)
            server.send(signal.SIGKILL)
            server.wait_ended(count)
        began = time.monotonic()
        is_back = server.wait_ready(number)
        seconds = time.monotonic() - began
        served = sum(life.ready is not None for life in server.lives)
        rig.check(
            is_back and seconds <= rig.allow(READY_SECONDS),
            f"{number} kills, {number - served} of them before it served; then it serves after {seconds:.1f} s",
        )
        callers = rig.make_callers(StubCaller, f"unix:{socket}", 1)
        ended = callers[0].call(rig.images[0], 10.0)
        callers[0].close()
        rig.check(ended.status == "OK", f"through its socket: {ended.status}")
        left = find_leftovers(rig.folder / "cache") + find_leftovers(socket.parent, keep=(socket.name,))
        rig.check(not left, f"left over: {', '.join(left[:3]) or 'nothing'}")
    left = find_leftovers(socket.parent)
    rig.check(not left, f"after its end, beside the lock: {', '.join(left) or 'nothing'}")


def find_leftovers(folder: Path, keep: tuple[str, ...] = ()) -> list[str]:
    """What is there that should not be: staging folders, temporary files, sockets; locks may stay."""
    found = [path for path in folder.rglob("*") if "staging" in path.name or path.is_socket() or ".tmp" in path.name]
    return [path.name for path in found if path.name not in keep]


def terminate(rig: Rig) -> None:
    """SIGTERM to a server that is alone."""
    with (
        rig.serve("--drain-seconds", str(DRAIN_SECONDS)) as server,
        rig.load(server, share=0.4) as load,
        rig.load(server, share=0.1, kind=StubCaller) as raw,
    ):
        came_back = end_again_and_again(rig, server, [load, raw], signal.SIGTERM, rig.choose(20, 2))
        rig.check(came_back, "it came back each time" if came_back else "it did not come back")
        check_gaps(rig, server)
        load.stop()
        raw.stop()
        check_exits(rig, server)
    rig.check_failures(load)
    check_raw(rig, raw)


def terminate_pair(rig: Rig) -> None:
    """SIGTERM to each of a pair in turn, behind round robin with health checking."""
    with rig.serve() as one, rig.serve() as other:
        both = f"{one.address},{other.address}"
        with rig.load(one, both, share=0.4) as load:
            came_back = all(
                end_again_and_again(rig, server, [load], signal.SIGTERM, 1)
                for server in [one, other] * rig.choose(10, 1)
            )
            rig.check(came_back, "each came back each time" if came_back else "one did not come back")
            load.stop()
        check_exits(rig, one)
        check_exits(rig, other)
    rig.check_failures(load)


def check_exits(rig: Rig, server: Server) -> None:
    """Promises that all ends so far were clean."""
    codes = [life.code for life in server.lives]
    rig.check(not any(codes), f"{len(codes)} exits, codes {sorted(set(codes))}")


def terminate_watched(rig: Rig) -> None:
    """SIGTERM with health watches and a stream that are open and idle."""
    drain = 3.0
    over = threading.Event()

    def send_nothing() -> Iterator[pb.PredictRequest]:
        over.wait(60)
        return
        yield

    with rig.serve("--drain-seconds", str(drain)) as server, connect(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(50)]
        for watch in watches:
            next(watch)
        stream = stroke_pb2_grpc.StrokeServiceStub(channel).PredictStream(send_nothing(), timeout=60)
        time.sleep(0.2)
        began = time.monotonic()
        server.send(signal.SIGTERM)
        is_over = server.wait_ended(1, drain + 10)
        seconds = time.monotonic() - began
        told = sum(read_last(watch) == health_pb2.HealthCheckResponse.NOT_SERVING for watch in watches)
        over.set()
        stream.cancel()
        rig.check(
            is_over and seconds <= rig.allow(drain + 1),
            f"with 50 watches and a silent stream it ended after {seconds:.1f} s (grace {drain:g} s)",
        )
        rig.check(told == len(watches), f"{told} of {len(watches)} watches were told NOT_SERVING before")
        check_exits(rig, server)


def read_last(watch: Iterable[health_pb2.HealthCheckResponse]) -> int:
    """The last status that a watch was told."""
    status = 0
    try:
        for answer in watch:
            status = answer.status
    except grpc.RpcError:
        pass
    return status


def suspend(rig: Rig) -> None:
    """SIGSTOP for a while, as of a virtual machine that is moved."""
    seconds = rig.choose(10, 3)
    with rig.serve() as server, rig.load(server, share=0.3, deadline=2.0, kind=StubCaller) as load:
        load.wait_answers(20)
        server.send(signal.SIGSTOP)
        time.sleep(seconds)
        server.send(signal.SIGCONT)
        resumed = time.monotonic()
        is_back = load.wait_answers(20, 10)
        took = time.monotonic() - resumed
        load.stop()
        rig.check(is_back and not server.lives, f"after {seconds} s of standing still, 20 answers within {took:.1f} s")
    failures = load.count_failures()
    others = {what: number for what, number in failures.items() if not what.startswith("DEADLINE_EXCEEDED")}
    # What comes while it stands still fills the queue at once when it goes on: that may be refused.
    wrong = {what: number for what, number in others.items() if not what.startswith("RESOURCE_EXHAUSTED")}
    rig.check(not wrong, f"{failures.total()} of {len(load.calls)} calls of 2 s failed: {dict(failures)}")


FAULTS = (
    Fault(
        "kill",
        "kill -9 with calls in flight",
        "the client's calls do not fail; ready again in <= 5 s; others see UNAVAILABLE alone",
        kill,
        in_smoke=True,
    ),
    Fault(
        "kill-start",
        "kill -9 while it starts, with cache, audit log and socket file",
        "it serves in <= 5 s afterwards, and nothing is left over",
        kill_starting,
    ),
    Fault(
        "term",
        "SIGTERM with calls in flight, a server alone",
        "the client's calls do not fail; exit code 0; ready again in <= 5 s",
        terminate,
        in_smoke=True,
    ),
    Fault(
        "term-pair",
        "SIGTERM with calls in flight, a pair with round robin and health checking",
        "the client's calls do not fail; exit code 0",
        terminate_pair,
    ),
    Fault(
        "term-watched",
        "SIGTERM with 50 open health watches and a silent stream",
        "it ends within the grace time and 1 s, with exit code 0",
        terminate_watched,
    ),
    Fault(
        "stop",
        "SIGSTOP for 10 s, then SIGCONT",
        "calls end at their deadlines; it goes on without a restart",
        suspend,
        in_smoke=True,
    ),
)
