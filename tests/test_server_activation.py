"""Changes to what is served: what is allowed, what is refused, and that the old model goes on whatever goes wrong."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from server.errors import ChangeRefusedError
from server.machine import priority
from server.models import activation
from server.models.activation import Activator
from server.models.active import ACTIVE_FILE, read_active
from server.models.engine import DEFAULT_OPTIONS
from server.models.family import CANARY, SHADOW
from server.models.manifest import MANIFEST_FILE, MODEL_FILE, make_golden_input
from server.models.registry import ModelRegistry
from tests.fakes import (
    SIDE,
    SPEC,
    build_tiny_graph,
    build_tiny_model,
    rewrite_manifest,
    sha256_hex,
    with_version,
    write_model,
)

PIXELS = make_golden_input(3, SIDE, SIDE, 3)[np.newaxis]


def add(root: Path, version: str, gain: float = 0.05) -> Path:
    """Writes a version that answers in its own way."""
    spec = with_version(version)
    return write_model(root, spec, build_tiny_model(spec, gain=gain))


@dataclass
class Box:
    """A models folder and what is served of it."""

    root: Path
    registry: ModelRegistry
    activator: Activator

    @property
    def served(self) -> dict[str, str]:
        """Channel → version, of the default model."""
        return {channel: served.release.version for channel, served in self.registry.snapshot.default.channels}

    def refuse(self, change: Callable[[Activator], object]) -> str:
        """The reason for which a change is refused; nothing is changed by it, in memory or on the disk."""
        before, written = self.served, read_active(self.root)
        with pytest.raises(ChangeRefusedError) as refusal:
            change(self.activator)
        assert (self.served, read_active(self.root)) == (before, written)
        assert self.activator.failures[-1].reason == refusal.value.reason
        return refusal.value.reason


def start(root: Path, wanted: str = "tiny") -> Box:
    registry = ModelRegistry()
    registry.load(root, wanted)
    return Box(root, registry, Activator(registry, root, DEFAULT_OPTIONS))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Serves version 2; 1 and 3 are there, too."""
    add(tmp_path, "2")
    box = start(tmp_path)
    add(tmp_path, "1", 0.04)
    add(tmp_path, "3", 0.06)
    return box


def test_activation_serves_a_newer_version_and_so_does_a_restart(box: Box) -> None:
    """What is told on the way says how far it is; the result says what was before."""
    steps: list[str] = []

    said = box.activator.activate("tiny", "3", report=steps.append)

    assert said == "tiny 3 is stable; before, 2 was."
    assert steps[0] == "loading and verifying tiny 3"
    assert box.served == start(box.root).served == {"stable": "3"}
    assert box.activator.counts == {("activate", "ok"): 1}


def test_what_is_stable_can_be_written_down(box: Box) -> None:
    """So that a restart serves it though something newer has been copied."""
    assert box.activator.activate("tiny", "2") == "tiny 2 is stable already."
    assert start(box.root).served == {"stable": "2"}


def test_rollback_goes_back_entry_by_entry(box: Box) -> None:
    """Also after a restart; before the first one there is nothing."""
    add(box.root, "4")
    box.activator.activate("tiny", "3")
    box.activator.activate("tiny", "4")

    box.activator.roll_back("tiny")
    again = start(box.root)
    assert again.served == {"stable": "3"}
    again.activator.roll_back("tiny")
    assert again.served == start(box.root).served == {"stable": "2"}
    assert again.refuse(lambda a: a.roll_back("tiny")) == "NOTHING_BEFORE"


def test_version_that_was_rolled_back_can_come_again(box: Box) -> None:
    """It is newer than what is stable."""
    box.activator.activate("tiny", "3")
    box.activator.roll_back("tiny")
    box.activator.activate("tiny", "3")

    assert box.served == {"stable": "3"}


def test_versions_never_fall_but_by_rollback(box: Box) -> None:
    """Neither for all images nor for a share of them; a shadow answers nobody, so it may be old."""
    for change in (lambda a: a.activate("tiny", "1"), lambda a: a.activate("tiny", "1", CANARY, 5.0)):
        assert box.refuse(change) == "VERSION_FALLS"
    assert "python -m server model rollback tiny" in box.activator.failures[-1].message
    box.activator.activate("tiny", "1", SHADOW)
    assert box.refuse(lambda a: a.promote("tiny")) == "VERSION_FALLS"


def test_other_spelling_of_a_version_is_no_newer_one(box: Box) -> None:
    """Nobody could tell which of two answers is the newer one."""
    add(box.root, "02")

    assert box.refuse(lambda a: a.activate("tiny", "02")) == "MODEL_AMBIGUOUS"


def test_version_is_not_used_again_for_other_files(box: Box) -> None:
    """Answers of two models would have the same version."""
    box.activator.activate("tiny", "3")
    shutil.rmtree(box.root / "tiny" / "3")
    add(box.root, "3", 0.07)

    assert box.refuse(lambda a: a.activate("tiny", "3")) == "VERSION_REUSED"


@pytest.mark.parametrize(
    ("name", "version", "reason"),
    [
        ("tiny", "../1", "VERSION_INVALID"),
        ("tiny", "", "VERSION_INVALID"),
        ("tiny", "9", "MODEL_NOT_FOUND"),
        ("../tiny", "3", "MODEL_NOT_SERVED"),
        ("", "3", "MODEL_NOT_SERVED"),
        ("other", "1", "MODEL_NOT_SERVED"),
    ],
)
def test_what_is_not_there_is_refused(box: Box, name: str, version: str, reason: str) -> None:
    """No name and no version leads out of the models folder."""
    assert box.refuse(lambda a: a.activate(name, version)) == reason


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.0, float("nan"), float("inf")])
def test_canary_has_a_share_that_is_one(box: Box, percent: float) -> None:
    """Above nothing and below everything."""
    assert box.refuse(lambda a: a.activate("tiny", "3", CANARY, percent)) == "PERCENT_INVALID"


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
    add(box.root, "2", 0.01)
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


def test_one_change_is_made_at_a_time(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are refused at once, with a hint when to come again."""
    entered, release = threading.Event(), threading.Event()
    load = activation.load_served

    def slow(*arguments: object) -> object:
        entered.set()
        assert release.wait(60)
        return load(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(activation, "load_served", slow)
    first = threading.Thread(target=box.activator.activate, args=("tiny", "3"))
    first.start()
    assert entered.wait(60)
    changes: list[Callable[[Activator], object]] = [lambda a: a.activate("tiny", "3")] * 10
    changes += [lambda a: a.roll_back("tiny"), lambda a: a.promote("tiny"), lambda a: a.unload("tiny")]
    for change in changes:
        assert box.refuse(change) == "CHANGE_IN_PROGRESS"
    release.set()
    first.join()

    assert box.served == {"stable": "3"}


def test_another_server_of_the_folder_is_noticed(box: Box) -> None:
    """Its change is not undone without a word."""
    Activator(box.registry, box.root, DEFAULT_OPTIONS).activate("tiny", "2")
    start(box.root).activator.activate("tiny", "3")
    add(box.root, "4")

    with pytest.raises(ChangeRefusedError) as refusal:
        box.activator.activate("tiny", "4")
    assert refusal.value.reason == "ACTIVE_CHANGED"


def test_version_that_was_named_at_the_start_is_not_changed(tmp_path: Path) -> None:
    """A restart would serve it again, and so let the version fall."""
    add(tmp_path, "1")
    box = start(tmp_path, "tiny/1")
    add(tmp_path, "2")

    assert box.refuse(lambda a: a.activate("tiny", "2")) == "MODEL_PINNED"


def test_canary_and_shadow_stand_beside_the_stable_version(box: Box) -> None:
    """A restart brings them back; unload ends both; a new stable version ends them, too."""
    add(box.root, "4")
    box.activator.activate("tiny", "3", CANARY, 12.5)
    box.activator.activate("tiny", "4", SHADOW)

    again = start(box.root)
    assert box.served == again.served == {"stable": "2", "canary": "3", "shadow": "4"}
    assert again.registry.snapshot.default.percent == 12.5
    again.activator.unload("tiny")
    assert again.served == start(box.root).served == {"stable": "2"}
    again.activator.activate("tiny", "3", CANARY, 12.5)
    again.activator.activate("tiny", "4")
    assert again.served == start(box.root).served == {"stable": "4"}


@pytest.mark.parametrize("channel", [CANARY, SHADOW])
def test_promotion_makes_stable_what_was_on_trial(box: Box, channel: str) -> None:
    """With all threads that a stable version has; and it can be rolled back."""
    box.activator.activate("tiny", "3", channel, 5.0)
    box.activator.promote("tiny")

    assert box.served == start(box.root).served == {"stable": "3"}
    assert box.registry.get().options.threads == DEFAULT_OPTIONS.threads
    assert box.refuse(lambda a: a.promote("tiny")) == "NOTHING_ON_TRIAL"
    box.activator.roll_back("tiny")
    assert box.served == {"stable": "2"}


def test_model_that_is_not_the_default_can_be_unloaded(tmp_path: Path) -> None:
    """And activated again, though not in an older version; the default stays."""
    add(tmp_path, "1")
    for version in ("1", "2"):
        write_model(tmp_path, replace(SPEC, name="other", version=version))
    box = start(tmp_path, "tiny,other")

    assert box.refuse(lambda a: a.unload("tiny")) == "MODEL_IS_DEFAULT"
    box.activator.unload("other")
    assert [model.spec.name for model in box.registry] == ["tiny"]
    assert box.refuse(lambda a: a.activate("other", "1")) == "VERSION_FALLS"
    box.activator.activate("other", "2")
    assert [model.spec.name for model in box.registry] == ["other", "tiny"]


def test_old_model_leaves_with_its_last_request(box: Box) -> None:
    """What was found for a request stays until it has ended; then nothing holds the model."""
    route = box.registry.find()
    old = weakref.ref(box.registry.get())
    box.activator.activate("tiny", "3")

    assert route.pick("00" * 32).served.release.version == "2"
    assert box.registry.last_departure == 0
    del route
    gc.collect()
    assert old() is None
    assert box.registry.last_departure > 0


def test_threads_that_answer_have_the_usual_priority(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread cannot be raised again, so those of the runtime's pool must not be made by one of low priority; all else
    of an activation is done by such ones. A rollback is in a hurry."""
    quiet: list[str] = []
    monkeypatch.setattr(priority, "lower_priority", lambda: quiet.append(threading.current_thread().name))
    monkeypatch.setattr("server.models.onnxruntime_engine.lower_priority", priority.lower_priority)
    many = replace(DEFAULT_OPTIONS, threads=3)
    box.activator = Activator(box.registry, box.root, many)
    usual = set(list_priorities())

    box.activator.activate("tiny", "3")

    assert len(quiet) >= 3, "reading, sessions, golden answers"
    assert set(quiet) == {"aside"}
    quiet.clear()
    box.activator.roll_back("tiny")
    assert quiet == []
    assert set(list_priorities()) == usual


def test_pool_of_the_runtime_is_made_before_priority_falls(box: Box) -> None:
    """On this very system: no thread of low priority is left after an activation."""
    box.activator = Activator(box.registry, box.root, replace(DEFAULT_OPTIONS, threads=3))
    before = list_priorities()

    box.activator.activate("tiny", "3")

    after = list_priorities()
    assert len(after) > len(before), "the pool of the new model"
    assert max(after) == max(before)


def list_priorities() -> list[int]:
    """Of all threads of this process."""
    return [os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")]
