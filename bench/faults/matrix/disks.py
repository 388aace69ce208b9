"""Disks that are full, read-only or gone, a log that nobody reads, and a cache that somebody else writes."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.faults.callers import StubCaller, connect
from bench.faults.load import count_failures, wait_until
from bench.faults.models import make_large_model
from bench.faults.places import fill, find_unshare, see, wrap_read_only, wrap_small
from bench.faults.rig import Fault, Rig
from bench.faults.server import Server, measure_gaps

NO_MOUNTS = "no right to mount here"
MOST_LINES = 20
"""That a full disk may add to the log."""

READY_SECONDS = 5.0
PIPE_LINES = 1500
"""Lines of the log that fill a pipe: 64 KiB."""


def fill_disk(rig: Rig) -> None:
    """The audit log's disk fills up under load, and is emptied again."""
    if not find_unshare():
        rig.verdict.skip(NO_MOUNTS)
        return
    place = rig.folder / "disk"
    place.mkdir()
    flags = ("--audit", str(place / "audit.jsonl"))
    with rig.stage(*flags, wrap=wrap_small(place, "512k")) as scene:
        filler = fill(see(scene.server.pid, place))
        answered = scene.load.wait_answers(rig.choose(300, 60))
        alarmed = wait_until(lambda: ask_alarm(scene.server) == "NOT_SERVING", rig.allow(10))
        rig.check(answered and alarmed, f"full: answers go on, alarm {'rung' if alarmed else 'silent'}")
        filler.unlink()
        calmed = wait_until(lambda: ask_alarm(scene.server) == "SERVING", rig.allow(10))
        rig.check(calmed, "emptied: the log goes on" if calmed else "emptied: the log does not go on")
    lines = len(scene.server.read_log().splitlines())
    rig.check(lines <= MOST_LINES, f"{lines} lines in the log")
    require_log(rig)


def ask_alarm(server: Server) -> str:
    """What health says of the audit log."""
    with connect(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service="stroke.alarm.audit"), timeout=10)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def require_log(rig: Rig) -> None:
    """With ``--audit-required`` nothing is judged that is not written down, and that is said."""
    place = rig.folder / "required"
    place.mkdir()
    flags = ("--audit", str(place / "audit.jsonl"), "--audit-required")
    with rig.serve(*flags, wrap=wrap_small(place, "512k")) as server:
        (caller,) = rig.make_callers(StubCaller, server.address, 1)
        first = caller.call(rig.images[0], 10)
        filler = fill(see(server.pid, place))
        refused = wait_until(lambda: caller.call(rig.images[0], 10).reason == "AUDIT_UNAVAILABLE", rig.allow(10))
        filler.unlink()
        again = wait_until(lambda: caller.call(rig.images[0], 10).status == "OK", rig.allow(10))
        caller.close()
        rig.check(
            first.status == "OK" and refused and again,
            f"with --audit-required: refused while full {refused}, answers afterwards {again}",
        )


def fill_cache(rig: Rig) -> None:
    """The cache's disk is too small for the model's graph, or read-only."""
    if not find_unshare():
        rig.verdict.skip(NO_MOUNTS)
        return
    models = make_large_model(rig.scale.models, rig.folder / "models")
    for name, wrap in (
        ("too small", wrap_small(rig.folder / "cache", "64k")),
        ("read-only", wrap_read_only(rig.folder)),
    ):
        (rig.folder / "cache").mkdir(exist_ok=True)
        with rig.serve(models=models, wrap=wrap) as server:
            (caller,) = rig.make_callers(StubCaller, server.address, 1)
            ended = caller.call(rig.images[0], 10)
            caller.close()
            left = [p.name for p in see(server.pid, rig.folder / "cache").rglob("*staging*")]
            rig.check(ended.status == "OK" and not left, f"{name}: {ended.status}, left over {left or 'nothing'}")
    with rig.start("--audit", str(rig.folder / "audit.jsonl"), wrap=wrap_read_only(rig.folder), restarts=False) as dead:
        dead.wait_ended(1)
        code, lines = dead.lives[0].code, dead.read_log().strip().splitlines()
        rig.check(code == 1 and "audit" in lines[-1], f"read-only with an audit log: exit {code}, {lines[-1][:120]!r}")


def remove_models(rig: Rig) -> None:
    """The folder of models goes away under a server, which is then restarted, and comes back."""
    models = rig.folder / "models"
    shutil.copytree(rig.scale.models, models)
    with rig.serve(models=models) as server, rig.load(server, share=0.3) as load:
        models.rename(rig.folder / "elsewhere")
        answered = load.wait_answers(50)
        rig.check(answered, "without its models' folder it goes on")
        load.stop()
        rig.check_failures(load)
        server.send(signal.SIGTERM)
        failed = server.wait_ended(3)
        codes = [life.code for life in server.lives[1:]]
        never = not any(life.ready for life in server.lives[1:])
        rig.check(failed and never and set(codes) == {1}, f"started again it ends with {codes}, never serving")
        count = len(server.lives)
        (rig.folder / "elsewhere").rename(models)
        rig.check(server.wait_ready(count), "with its folder it serves again")


def stall_reader(rig: Rig) -> None:
    """Nobody reads standard error."""
    reader, writer = os.pipe()
    try:
        with rig.stage("--log-level", "debug", share=0.4, stderr=writer) as scene:
            answered = scene.load.wait_answers(rig.choose(PIPE_LINES, 600), 120)
            rig.check(answered, f"{scene.load.count_answers()} answers, each with lines in a pipe that nobody reads")
    finally:
        os.close(reader)
        os.close(writer)


def vandalise_cache(rig: Rig) -> None:
    """Somebody else writes into the cache while the server restarts."""
    models = make_large_model(rig.scale.models, rig.folder / "models")
    over = threading.Event()
    done: list[str] = []

    def vandalise() -> None:
        while not over.wait(rig.random.uniform(0.0, 0.2)):
            files = [path for path in (rig.folder / "cache").rglob("*") if path.is_file()]
            if files:
                done.append(spoil(rig, rig.random.choice(files)))

    with rig.serve(models=models) as server:
        vandal = threading.Thread(target=vandalise)
        vandal.start()
        (caller,) = rig.make_callers(StubCaller, server.address, 1)
        ends = []
        for _ in range(rig.choose(15, 3)):
            if not server.replace(signal.SIGTERM):
                break
            ends.append(caller.call(rig.images[0], 10))
            rig.pause(0.1, 0.5)
        over.set()
        vandal.join()
        caller.close()
        failures = count_failures(ends)
        longest = max(measure_gaps(server), default=float("inf"))
        rig.check(
            not failures and longest <= rig.allow(READY_SECONDS),
            f"{len(done)} alterations, {len(ends)} starts, the longest {longest:.1f} s: "
            f"{dict(failures) or 'all answer'}",
        )


def spoil(rig: Rig, path: Path) -> str:
    """Does something to a file of the cache; what it was."""
    kind = rig.random.choice(("flip", "cut", "replace", "link", "own", "open", "pipe"))
    try:
        data = bytearray(path.read_bytes())
        match kind:
            case "flip":
                data[rig.random.randrange(len(data))] ^= 1
                path.write_bytes(data)
            case "cut":
                os.truncate(path, len(data) // 2)
            case "replace":
                path.with_name("new").write_bytes(rig.random.randbytes(1000))
                path.with_name("new").replace(path)
            case "link":
                path.unlink()
                path.symlink_to("/dev/zero")
            case "own":
                os.chown(path, 12345, 12345)
            case "open":
                path.parent.chmod(0o777)
                path.chmod(0o666)
            case _:
                path.unlink()
                os.mkfifo(path)
    except (OSError, ValueError) as error:
        return f"{kind}: {type(error).__name__}"
    return kind


FAULTS = (
    Fault(
        "disk-full",
        "the audit log's disk is filled to its last byte under load, then emptied",
        "answers go on, the alarm rings, <= 20 lines of log; with --audit-required refused instead, and said",
        fill_disk,
        in_smoke=True,
    ),
    Fault(
        "cache-full",
        "a cache on a full disk, then a read-only file system",
        "it serves without a cache and leaves nothing; what it must write ends the start with a reason",
        fill_cache,
    ),
    Fault(
        "models-gone",
        "the folder of models goes away, and comes back",
        "it goes on from memory; a restart never serves without; it serves once the folder is back",
        remove_models,
    ),
    Fault("stderr", "nobody reads standard error", "nobody notices", stall_reader),
    Fault(
        "cache-shared",
        "somebody else alters, cuts, links and owns files of the cache while it restarts",
        "every start serves the right answers in <= 5 s",
        vandalise_cache,
    ),
)
