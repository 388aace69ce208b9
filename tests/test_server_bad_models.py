"""Whatever is wrong with a model or a disk: the old model goes on."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from server.models import activation
from server.models.active import ACTIVE_FILE
from server.models.family import CANARY, SHADOW
from server.models.golden import make_golden_input
from server.models.manifest import MANIFEST_FILE, MODEL_FILE
from tests.administration import Box, add_version, start_second_of_three
from tests.fakes import (
    SIDE,
    SPEC,
    build_tiny_graph,
    build_tiny_model,
    rewrite_manifest,
    sha256_hex,
    with_version,
)

PIXELS = make_golden_input(3, SIDE, SIDE, 3)[np.newaxis]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return start_second_of_three(tmp_path)


def flip(folder: Path) -> None:
    path = folder / MODEL_FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lie(folder: Path, data: bytes) -> None:
    """Other bytes, with a manifest that has their digest: only what they answer is wrong."""
    (folder / MODEL_FILE).write_bytes(data)
    record = {"sha256": sha256_hex(data), "size": len(data)}
    rewrite_manifest(folder, lambda document: document["files"][MODEL_FILE].update(record))


def make_nan_model() -> bytes:
    """Weights that are no numbers."""
    model = build_tiny_graph(with_version("3"))
    for tensor in model.graph.initializer:
        if tensor.name == "weights":
            tensor.CopyFrom(numpy_helper.from_array(np.full((1, 2), np.nan, np.float32), "weights"))
    onnx.helper.set_model_props(model, {"stroke.model": with_version("3").to_json()})
    data: bytes = model.SerializeToString()
    return data


BAD = {
    "empty": lambda folder: (folder / MODEL_FILE).write_bytes(b""),
    "half": lambda folder: (folder / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes()[:400]),
    "bit flipped": flip,
    "missing": lambda folder: (folder / MODEL_FILE).unlink(),
    "pipe": lambda folder: ((folder / MODEL_FILE).unlink(), os.mkfifo(folder / MODEL_FILE)),
    "device": lambda folder: ((folder / MODEL_FILE).unlink(), (folder / MODEL_FILE).symlink_to("/dev/zero")),
    "link": lambda folder: ((folder / MODEL_FILE).unlink(), (folder / MODEL_FILE).symlink_to("/etc/hostname")),
    "no manifest": lambda folder: (folder / MANIFEST_FILE).unlink(),
    "half a manifest": lambda folder: (folder / MANIFEST_FILE).write_text("{"),
    "page": lambda folder: lie(folder, b"<html>not a model</html>"),
    "another model": lambda folder: lie(folder, build_tiny_model(with_version("3"), gain=0.01)),
    "another version": lambda folder: lie(folder, build_tiny_model(with_version("4"), gain=0.06)),
    "another name": lambda folder: lie(folder, build_tiny_model(replace(SPEC, name="other"), gain=0.06)),
    "no numbers": lambda folder: lie(folder, make_nan_model()),
    "nothing": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("channel", ["stable", CANARY, SHADOW])
def test_bad_model_never_replaces_a_good_one(box: Box, kind: str, channel: str) -> None:
    """It is refused in every channel; what answered before goes on with the same answers."""
    before = box.registry.get().run(PIXELS)
    BAD[kind](box.root / "tiny" / "3")

    box.refuse(lambda a: a.activate("tiny", "3", channel, 50.0))

    assert box.served == {"stable": "2"}
    assert (box.registry.get().run(PIXELS) == before).all()
    assert not (box.root / ACTIVE_FILE).exists()
    (counted,) = box.activator.counts
    assert counted[0] == "activate"
    assert counted[1].isupper()


def test_rollback_to_something_altered_is_refused(box: Box) -> None:
    """A bad model does not come in that way either."""
    box.activator.activate("tiny", "3")
    flip(box.root / "tiny" / "2")

    assert box.refuse(lambda a: a.roll_back("tiny")) == "MODEL_FILE_ALTERED"
    shutil.rmtree(box.root / "tiny" / "2")
    add_version(box.root, "2", 0.01)
    assert box.refuse(lambda a: a.roll_back("tiny")) == "RELEASE_ALTERED"


def test_what_cannot_be_written_down_is_not_served(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart would serve something else."""

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("server.models.active.write", fail)

    assert box.refuse(lambda a: a.activate("tiny", "3")) == "ACTIVE_NOT_WRITABLE"
    assert "Read-only file system" in box.activator.failures[-1].message


def test_unexpected_fault_is_a_refusal_too(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next change is not kept waiting for it."""
    with monkeypatch.context() as patch:
        patch.setattr(activation, "load_served", lambda *arguments: 1 / 0)
        assert box.refuse(lambda a: a.activate("tiny", "3")) == "CHANGE_FAILED"
        patch.setattr(activation, "load_served", raise_memory)
        assert box.refuse(lambda a: a.activate("tiny", "3")) == "CHANGE_FAILED"

    box.activator.activate("tiny", "3")
    assert box.served == {"stable": "3"}


def raise_memory(*arguments: object) -> None:
    raise MemoryError
