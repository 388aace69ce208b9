"""Models that are changed while they answer: good ones, bad ones, many at once, and with a server that is killed."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import grpc

from bench.faults.callers import connect, read_error
from bench.faults.golden import find_options
from bench.faults.load import HeldLoad, Span
from bench.faults.matrix.files import damage_files
from bench.faults.matrix.stops import check_gaps
from bench.faults.models import make_version
from bench.faults.places import fill, find_unshare, see, wrap_small
from bench.faults.rig import Fault, Rig, Scene
from bench.faults.server import Server
from proto import admin_pb2 as pb
from proto import admin_pb2_grpc
from server.lifecycle.sockets import name_socket
from server.models.manifest import MANIFEST_FILE, MODEL_FILE

DONE = "done"
CHANGE_SECONDS = 60.0
ROLLBACK_SECONDS = 1.0
MOST_GROWTH_MB = 3.0
MOST_SLOWER = 1.2
"""How many times as long answers may take while a model is changed."""

CHANGE_TAKES = 0.6
"""Seconds, more or less, that a change takes under load."""

OPENVINO_THREADS = 8
"""That OpenVINO starts for its second model, and keeps; ten models have no more."""

SETTLED = 5
"""Changes after which memory is looked at first."""

GATED = {"MODEL_FILE_ALTERED", "MODEL_FILE_TRUNCATED", "MANIFEST_INVALID", "MODEL_ANSWERS_WRONG"}
"""Why flipped bits are refused."""


class Operator:
    """Somebody who changes what a server serves, through its socket."""

    def __init__(self, rig: Rig, server: Server, name: str) -> None:
        self._rig, self._server, self._name = rig, server, name

    @contextmanager
    def _connect(self) -> Iterator[admin_pb2_grpc.AdminStub]:
        path = self._rig.folder / "admin" / name_socket(self._server.address)
        with connect(f"unix:{path}") as channel:
            yield admin_pb2_grpc.AdminStub(channel)

    def activate(self, version: str) -> str:
        """Makes a version stable; returns ``DONE``, or why not."""
        with self._connect() as stub:
            return follow(stub.Activate(pb.ActivateRequest(name=self._name, version=version), timeout=CHANGE_SECONDS))

    def roll_back(self) -> str:
        """Makes stable what was before; returns ``DONE``, or why not."""
        with self._connect() as stub:
            return follow(stub.RollBack(pb.RollBackRequest(name=self._name), timeout=CHANGE_SECONDS))

    def find_stable(self) -> str:
        """The version that answers."""
        with self._connect() as stub:
            (model,) = stub.GetStatus(pb.GetStatusRequest(), timeout=CHANGE_SECONDS).models
        return next(str(one.version) for one in model.versions if one.channel == pb.STABLE)


def follow(progress: Iterator[pb.Progress]) -> str:
    """What becomes of a change."""
    try:
        is_done = [step.is_done for step in progress]
    except grpc.RpcError as error:
        ended = read_error("", error)
        return ended.reason or ended.status
    return DONE if is_done and is_done[-1] else "not done"


def make_models(rig: Rig, versions: Sequence[int], flags: Sequence[str] = ()) -> tuple[Path, dict[str, str]]:
    """Writes versions into a folder of models; returns it, and their digests. All are golden, none is declared."""
    root = rig.folder / "models"
    _, options = find_options(["--models", str(root), "--cache", "off", *flags])
    digests = {}
    for version in map(str, versions):
        folder = root / "all" / version
        made = make_version(rig.scale.models, folder, version)
        digests[version] = rig.golden.add_model(made, options).digest
    return root, digests


@contextmanager
def stage(
    rig: Rig, versions: Sequence[int], *flags: str, threads: int = 2
) -> Iterator[tuple[Scene, Operator, dict[str, str]]]:
    """A server under load with the first of some versions, whose others can be put beside it."""
    sources, digests = make_models(rig, versions, flags)
    first = next((sources / "all" / str(versions[0])).glob("*/*"))
    models = rig.folder / "served"
    shutil.copytree(first, models / first.parent.name / first.name)
    with rig.stage("--admin", str(rig.folder / "admin"), *flags, models=models, share=0.4, threads=threads) as scene:
        yield scene, Operator(rig, scene.server, first.parent.name), digests


def put(rig: Rig, version: str) -> Path:
    """Copies a version into the folder that is served; returns its own."""
    source = next((rig.folder / "models" / "all" / version).glob("*/*"))
    target = rig.folder / "served" / source.parent.name / version
    shutil.copytree(source, target)
    return target


def change_often(rig: Rig) -> None:
    """Good versions one after the other, and one rollback."""
    number = rig.choose(50, 3)
    versions = range(101, 102 + number)
    ends: Counter[str] = Counter()
    with stage(rig, versions) as (scene, operator, digests):
        settled, each = 0.0, rig.choose(24, 5)
        between, meanwhile = list[Span](), list[Span]()
        for count, version in enumerate(map(str, versions[1:]), start=1):
            # What the operator does beside it (files, a connection, a question) is done in both spans.
            put(rig, version)
            began = time.monotonic()
            operator.find_stable()
            scene.load.wait_answers(each)
            changing = time.monotonic()
            rig.history.declare(version, digests[version])
            ends[operator.activate(version)] += 1
            scene.load.wait_answers(each)
            between.append((began, changing))
            meanwhile.append((changing, time.monotonic()))
            if count == min(SETTLED, number):
                settled = rig.wait_memory(scene.server, 0, 1.0)
        rig.check(ends == {DONE: number}, f"{number} activations: {dict(ends)}")
        before, during = (scene.load.find_latency(99, *spans) for spans in (between, meanwhile))
        rig.check(
            during <= rig.allow(MOST_SLOWER) * before,
            f"p99 {1000 * before:.0f} ms between them, {1000 * during:.0f} ms meanwhile",
        )
        roll_back(rig, scene.load, operator, str(versions[-2]), digests)
        scene.load.stop()
        if not rig.scale.is_smoke:
            grown = rig.wait_memory(scene.server, settled + MOST_GROWTH_MB) - settled
            rig.check(grown <= MOST_GROWTH_MB, f"memory {grown:+.1f} MB from the {SETTLED}th on")


def roll_back(rig: Rig, load: HeldLoad, operator: Operator, version: str, digests: dict[str, str]) -> None:
    """Brings the version before back, in time."""
    began = time.monotonic()
    end = operator.roll_back()
    seconds = time.monotonic() - began
    rig.history.declare_rollback(version, digests[version], began)
    load.wait_answers(5)
    is_kept = end == DONE and seconds <= rig.allow(ROLLBACK_SECONDS) and operator.find_stable() == version
    rig.check(is_kept, f"rollback to {version}: {end} within {1000 * seconds:.0f} ms")


def change_openvino(rig: Rig) -> None:
    """The same with OpenVINO, to whose models nothing else of this process belongs."""
    if find_spec("openvino") is None:
        rig.verdict.skip("OpenVINO is not installed")
        return
    number = rig.choose(10, 2)
    versions = range(301, 302 + number)
    ends: Counter[str] = Counter()
    with stage(rig, versions, "--runtime", "openvino", threads=OPENVINO_THREADS) as (scene, operator, digests):
        for version in map(str, versions[1:]):
            put(rig, version)
            rig.history.declare(version, digests[version])
            ends[operator.activate(version)] += 1
            scene.load.wait_answers(10)
        rig.check(ends == {DONE: number}, f"{number} activations: {dict(ends)}")


def change_to_bad(rig: Rig) -> None:
    """Versions that are damaged in every way, then single bits."""
    ends: Counter[str] = Counter()
    served = []
    with stage(rig, (201, 202)) as (scene, operator, _):
        kinds = list(damage_files(Path()))
        for kind in kinds[:: rig.choose(1, 4)]:
            folder = put(rig, "202")
            damage_files(folder)[kind]()
            end = operator.activate("202")
            ends[end] += 1
            served += [f"{kind}: {end}"] if end == DONE or not end.isupper() else []
            shutil.rmtree(folder)
        rig.check(not served, f"{ends.total()} kinds: {'; '.join(served) or dict(ends)}")
        for name in (MODEL_FILE, MANIFEST_FILE):
            times = rig.choose(40, 3)
            caught = sum(activate_flipped(rig, operator, name) in GATED for _ in range(times))
            rig.check(caught == times, f"{name}: {caught} of {times} flips caught")
        scene.load.wait_answers(10)
        stable = operator.find_stable()
        rig.check(stable == "201", f"served afterwards: {stable}")


def activate_flipped(rig: Rig, operator: Operator, name: str) -> str:
    """Activates a version of which one bit is flipped; returns what comes of it."""
    folder = put(rig, "202")
    data = bytearray((folder / name).read_bytes())
    places = [i for i, byte in enumerate(data) if name != MANIFEST_FILE or not chr(byte).isspace()]
    data[rig.random.choice(places)] ^= 1 << rig.random.randrange(8)
    (folder / name).write_bytes(data)
    end = operator.activate("202")
    shutil.rmtree(folder)
    return end


def storm(rig: Rig) -> None:
    """Twenty changes at once, again and again."""
    times, each = rig.choose(10, 2), 20
    versions = range(401, 402 + times * 2)
    ends: Counter[str] = Counter()
    with stage(rig, versions) as (scene, operator, digests), ThreadPoolExecutor(each) as pool:
        for version in map(str, versions[1:]):
            put(rig, version)
            rig.history.declare(version, digests[version])
        for index in range(times):
            pair = [str(versions[1 + 2 * index]), str(versions[2 + 2 * index])]
            ends += Counter(pool.map(operator.activate, pair * (each // 2)))
            scene.load.wait_answers(5)
        known = {DONE, "CHANGE_IN_PROGRESS", "VERSION_FALLS", "TOO_MANY_CALLS"}
        rig.check(set(ends) <= known and ends[DONE] > 0, f"{times} times {each} at once: {dict(ends)}")


def kill_changing(rig: Rig) -> None:
    """SIGKILL while a version is activated: afterwards the old or the new one is served, and nothing else."""
    times = rig.choose(10, 2)
    versions = range(501, 502 + times)
    wrong = []
    with stage_restarted(rig, versions) as (server, load, operator, digests), ThreadPoolExecutor(1) as pool:
        stable = str(versions[0])
        for version in map(str, versions[1:]):
            put(rig, version)
            rig.history.declare(version, digests[version])
            change = pool.submit(operator.activate, version)
            rig.pause(0.0, CHANGE_TAKES)
            if not server.replace(signal.SIGKILL):
                wrong.append("it did not come back")
                break
            change.result()
            load.wait_answers(5)
            found = operator.find_stable()
            if found not in (stable, version):
                wrong.append(f"{found} after {stable} or {version}")
            stable = found
        left = [path.name for path in (rig.folder / "served").rglob("*") if path.name.startswith(".active")]
        load.stop()
        check_gaps(rig, server)
        rig.check(
            not wrong, f"{times} kills: {'; '.join(wrong) or f'always the old or the new one, {stable} in the end'}"
        )
        rig.check(len(left) <= 1, f"left over: {', '.join(left) or 'nothing'}")
    rig.check_failures(load)


@contextmanager
def stage_restarted(rig: Rig, versions: Sequence[int]) -> Iterator[tuple[Server, HeldLoad, Operator, dict[str, str]]]:
    """As ``stage``, for a server that may end."""
    sources, digests = make_models(rig, versions)
    first = next((sources / "all" / str(versions[0])).glob("*/*"))
    models = rig.folder / "served"
    shutil.copytree(first, models / first.parent.name / first.name)
    flags = ("--admin", str(rig.folder / "admin"), "--model", first.parent.name)
    with rig.serve(*flags, models=models) as server, rig.load(server, share=0.3) as load:
        yield server, load, Operator(rig, server, first.parent.name), digests


def change_without_room(rig: Rig) -> None:
    """The disk of the models is full: what cannot be written down is not served."""
    if not find_unshare():
        rig.verdict.skip("no right to mount here")
        return
    sources, digests = make_models(rig, (601, 602))
    models = rig.folder / "served"
    models.mkdir()
    copy = f'cp -r "{sources}"/all/601/* "{models}"'
    rig.history.declare("601", digests["601"])
    flags = ("--models", str(models), "--cache", "off", "--admin", str(rig.folder / "admin"), "--log-level", "warning")
    with Server(rig.folder, flags, wrap=wrap_small(models, "16m", copy)) as server:
        rig.check(server.wait_ready(), "it serves")
        with rig.load(server, share=0.3) as load:
            inside = see(server.pid, models)
            source = next((sources / "all" / "602").glob("*/*"))
            shutil.copytree(source, inside / source.parent.name / "602")
            filler = fill(inside)
            operator = Operator(rig, server, source.parent.name)
            refused = operator.activate("602")
            load.wait_answers(10)
            filler.unlink()
            rig.history.declare("602", digests["602"])
            done = operator.activate("602")
            load.wait_answers(10)
            load.stop()
        rig.check(refused == "ACTIVE_NOT_WRITABLE", f"full: {refused}")
        rig.check(done == DONE, f"with room again: {done}")
    rig.check_failures(load)


FAULTS = (
    Fault(
        "activate",
        "50 good versions activated under load, then a rollback",
        "no call fails, every answer is that of a declared version; p99 <= 20 % more meanwhile; rollback in <= 1 s; "
        "memory within 3 MB",
        change_often,
        in_smoke=True,
    ),
    Fault(
        "activate-bad",
        "versions that are damaged in every way, and 40 single bits in model and manifest, activated under load",
        "all are refused with a reason; the old one answers on, nobody notices",
        change_to_bad,
        in_smoke=True,
    ),
    Fault("activate-ov", "10 good versions activated under load with OpenVINO", "no call fails", change_openvino),
    Fault(
        "storm",
        "20 activations at once, ten times",
        "one at a time is made, the others are refused with a reason; versions never fall; nobody notices",
        storm,
    ),
    Fault(
        "activate-kill",
        "kill -9 while a version is activated",
        "afterwards the old or the new one is served, ready again in <= 5 s; the client's calls do not fail",
        kill_changing,
    ),
    Fault(
        "activate-full",
        "a version activated on a full disk",
        "it is refused, the old one answers on; it is served once there is room",
        change_without_room,
    ),
)
