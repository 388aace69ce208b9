"""Models that are not what they should be, at the start of a server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import onnx
from PIL import Image

from bench.faults.callers import StubCaller
from bench.faults.golden import encode
from bench.faults.models import make_nan_for_black, make_nan_weights, make_version, sign_again
from bench.faults.rig import Fault, Rig
from bench.faults.server import Server
from server.models.manifest import INT8_FILE, MANIFEST_FILE, MODEL_FILE
from server.models.repository import find_only_model

START_SECONDS = 30.0


def damage_files(folder: Path) -> dict[str, Callable[[], object]]:
    """What can be wrong with a model's folder, and what makes it so."""
    model, manifest = folder / MODEL_FILE, folder / MANIFEST_FILE

    def cut(path: Path, keep: Callable[[int], int]) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: keep(len(data))])

    def poison() -> None:
        graph = onnx.load(model)
        make_nan_weights(graph)
        model.write_bytes(graph.SerializeToString())
        sign_again(folder)

    return {
        "empty": lambda: model.write_bytes(b""),
        "half-written": lambda: cut(model, lambda size: size // 2),
        "a byte short": lambda: cut(model, lambda size: size - 1),
        "a byte long": lambda: model.write_bytes(model.read_bytes() + b"\0"),
        "an error page": lambda: model.write_bytes(b"<html><body>404 Not Found</body></html>"),
        "missing": model.unlink,
        "manifest empty": lambda: manifest.write_bytes(b""),
        "manifest half-written": lambda: cut(manifest, lambda size: size // 2),
        "manifest missing": manifest.unlink,
        "NaN weights, well signed": poison,
    }


def start_damaged(rig: Rig) -> None:
    """Each kind of damage, before the only model is loaded."""
    served = []
    kinds = list(damage_files(Path()))
    if rig.scale.is_smoke:
        kinds = [kinds[1], kinds[-1]]
    reasons = []
    for number, kind in enumerate(kinds):
        models = rig.folder / str(number)
        damage_files(make_version(rig.scale.models, models, "1"))[kind]()
        code, line = try_start(rig, models)
        reasons.append(line.rpartition("[")[2].rstrip("]"))
        if code != 1 or "[" not in line:
            served.append(f"{kind}: exit {code}, {line[:100]!r}")
    rig.check(not served, f"{len(kinds)} kinds: {'; '.join(served) or ', '.join(reasons)}")


def try_start(rig: Rig, models: Path) -> tuple[int | None, str]:
    """Starts a server; returns its exit code and its last line, or None when it serves."""
    flags = ["--models", str(models), "--cache", "off", "--log-level", "warning"]
    with Server(rig.folder, flags, restarts=False) as server:
        if server.wait_ready(0, START_SECONDS):
            return None, "it serves"
        server.wait_ended(1)
        return server.lives[0].code, (server.read_log().strip().splitlines() or [""])[-1]


def flip_bits(rig: Rig) -> None:
    """A bit of the model's file, of its variant's, and of its manifest."""
    source = find_only_model(rig.scale.models)
    for name in (INT8_FILE, MODEL_FILE, MANIFEST_FILE):
        if not (source / name).exists():
            continue
        times, caught = rig.choose(40 if name != MANIFEST_FILE else 10, 2), 0
        for number in range(times):
            models = rig.folder / f"{name}-{number}"
            folder = models / source.parent.name / source.name
            shutil.copytree(source, folder)
            data = bytearray((folder / name).read_bytes())
            # White space of a manifest is not part of what it says.
            places = [i for i, byte in enumerate(data) if name != MANIFEST_FILE or not chr(byte).isspace()]
            data[rig.random.choice(places)] ^= 1 << rig.random.randrange(8)
            (folder / name).write_bytes(data)
            caught += try_start(rig, models)[0] == 1
            shutil.rmtree(models)
        rig.check(caught == times, f"{name}: {caught} of {times} caught")


def start_half_copied(rig: Rig) -> None:
    """A newer version that is still being copied lies beside a good one."""
    models = rig.folder / "models"
    make_version(rig.scale.models, models, "1")
    flags = rig.make_flags(models=models)
    newer = make_version(rig.scale.models, models, "2")
    data = (newer / MODEL_FILE).read_bytes()
    (newer / MODEL_FILE).write_bytes(data[: len(data) // 2])
    with Server(rig.folder, flags, restarts=False) as server:
        if not server.wait_ready():
            rig.check(False, f"it does not start: {server.read_log().strip()[-150:]!r}")
            return
        (caller,) = rig.make_callers(StubCaller, server.address, 1)
        ended = caller.call(rig.images[0], 10)
        caller.close()
        rig.check(ended.version == "1", f"it serves version {ended.version or ended.status}")


def answer_nan(rig: Rig) -> None:
    """A model that passes every check, and whose answer to a black image is not a number."""
    rig.judges_log = False  # it must say that its model fails
    models = rig.folder / "models"
    make_version(rig.scale.models, models, "1", make_nan_for_black)
    black = encode(Image.fromarray(np.zeros((128, 128), np.uint8)), "PNG")
    statuses = []
    with rig.serve("--checks", "off", models=models) as server:
        (caller,) = rig.make_callers(StubCaller, server.address, 1)
        for image in (rig.images[0], black, rig.images[0]):
            statuses.append(caller.call(image, 10).status)
        caller.close()
    wanted = ["OK", grpc.StatusCode.INTERNAL.name, "OK"]
    rig.check(statuses == wanted, f"good, black and good image: {', '.join(statuses)}")


FAULTS = (
    Fault(
        "model-damaged",
        "the only model is empty, half-written, longer, an error page, without weights that are numbers, ...",
        "it ends with exit code 1 and a reason, and never serves",
        start_damaged,
        in_smoke=True,
    ),
    Fault("model-flips", "single bits flipped in the files of a model, 40 each", "all are caught", flip_bits),
    Fault("model-half", "a half-copied version 2 beside a good version 1", "version 1 is served", start_half_copied),
    Fault(
        "model-nan",
        "a model whose answer to one image is NaN",
        "that image fails, no other does",
        answer_nan,
        in_smoke=True,
    ),
)
