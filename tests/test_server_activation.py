"""Changes to what is served: what is allowed, what is refused, and that the old model goes on whatever goes wrong."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.config import ServerConfig
from server.core.plan import check_tuned
from server.errors import ChangeRefusedError, ModelFileError
from server.machine import priority
from server.models import activation
from server.models.activation import Activator
from server.models.engines.engine import DEFAULT_OPTIONS, EngineOptions
from server.models.family import CANARY, SHADOW
from server.models.golden import make_golden_input
from server.models.registry import ModelRegistry
from server.models.signature import TrustedKey
from tests.administration import Box, add_version, start_box, start_second_of_three
from tests.fakes import (
    SIDE,
    SPEC,
    wait_until,
    write_model,
)

PIXELS = make_golden_input(3, SIDE, SIDE, 3)[np.newaxis]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return start_second_of_three(tmp_path)


def test_activation_serves_a_newer_version_and_so_does_a_restart(box: Box) -> None:
    """What is told on the way says how far it is; the result says what was before."""
    steps: list[str] = []

    said = box.activator.activate("tiny", "3", report=steps.append)

    assert said == "tiny 3 is stable; before, 2 was."
    assert steps[0] == "loading and verifying tiny 3"
    assert box.served == start_box(box.root).served == {"stable": "3"}
    assert box.activator.counts == {("activate", "ok"): 1}


def test_what_is_stable_can_be_written_down(box: Box) -> None:
    """So that a restart serves it though something newer has been copied."""
    assert box.activator.activate("tiny", "2") == "tiny 2 is stable already."
    assert start_box(box.root).served == {"stable": "2"}


def test_whoever_wants_to_know_hears_of_each_change(box: Box) -> None:
    """When it is served; not of one that was refused."""
    heard: list[dict[str, str]] = []
    box.activator.on_change = lambda: heard.append(box.served)

    box.activator.activate("tiny", "3")
    box.refuse(lambda a: a.activate("tiny", "1"))
    box.activator.roll_back("tiny")

    assert heard == [{"stable": "3"}, {"stable": "2"}]


def test_rollback_goes_back_entry_by_entry(box: Box) -> None:
    """Also after a restart; before the first one there is nothing."""
    add_version(box.root, "4")
    box.activator.activate("tiny", "3")
    box.activator.activate("tiny", "4")

    box.activator.roll_back("tiny")
    again = start_box(box.root)
    assert again.served == {"stable": "3"}
    again.activator.roll_back("tiny")
    assert again.served == start_box(box.root).served == {"stable": "2"}
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
    add_version(box.root, "02")

    assert box.refuse(lambda a: a.activate("tiny", "02")) == "MODEL_AMBIGUOUS"


def test_version_is_not_used_again_for_other_files(box: Box) -> None:
    """Answers of two models would have the same version."""
    box.activator.activate("tiny", "3")
    shutil.rmtree(box.root / "tiny" / "3")
    add_version(box.root, "3", 0.07)

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
    start_box(box.root).activator.activate("tiny", "3")
    add_version(box.root, "4")

    with pytest.raises(ChangeRefusedError) as refusal:
        box.activator.activate("tiny", "4")
    assert refusal.value.reason == "ACTIVE_CHANGED"


def test_version_that_was_named_at_the_start_is_not_changed(tmp_path: Path) -> None:
    """A restart would serve it again, and so let the version fall."""
    add_version(tmp_path, "1")
    box = start_box(tmp_path, "tiny/1")
    add_version(tmp_path, "2")

    assert box.refuse(lambda a: a.activate("tiny", "2")) == "MODEL_PINNED"


def test_canary_and_shadow_stand_beside_the_stable_version(box: Box) -> None:
    """A restart brings them back; unload ends both; a new stable version ends them, too."""
    add_version(box.root, "4")
    box.activator.activate("tiny", "3", CANARY, 12.5)
    box.activator.activate("tiny", "4", SHADOW)

    again = start_box(box.root)
    assert box.served == again.served == {"stable": "2", "canary": "3", "shadow": "4"}
    assert again.registry.snapshot.default.percent == 12.5
    again.activator.unload("tiny")
    assert again.served == start_box(box.root).served == {"stable": "2"}
    again.activator.activate("tiny", "3", CANARY, 12.5)
    again.activator.activate("tiny", "4")
    assert again.served == start_box(box.root).served == {"stable": "4"}


@pytest.mark.parametrize("channel", [CANARY, SHADOW])
def test_promotion_makes_stable_what_was_on_trial(box: Box, channel: str) -> None:
    """With all threads that a stable version has; and it can be rolled back."""
    box.activator.activate("tiny", "3", channel, 5.0)
    box.activator.promote("tiny")

    assert box.served == start_box(box.root).served == {"stable": "3"}
    assert box.registry.get().options.threads == DEFAULT_OPTIONS.threads
    assert box.refuse(lambda a: a.promote("tiny")) == "NOTHING_ON_TRIAL"
    box.activator.roll_back("tiny")
    assert box.served == {"stable": "2"}


def test_lost_trial_is_an_alarm_until_it_is_given_up(box: Box) -> None:
    """Or until something else becomes stable."""
    for end in (lambda a: a.unload("tiny"), lambda a: a.activate("tiny", "4")):
        box.activator.activate("tiny", "3", CANARY, 5.0)
        (box.root / "tiny" / "3").rename(box.root / "lost")
        again = start_box(box.root)
        assert again.registry.needs_person()
        assert again.served == {"stable": "2"}
        (box.root / "lost").rename(box.root / "tiny" / "3")
        if not (box.root / "tiny" / "4").exists():
            add_version(box.root, "4")
        end(again.activator)
        assert not again.registry.needs_person()
        assert not start_box(box.root).registry.needs_person()
        box.activator = again.activator


def test_version_that_a_restart_could_not_serve_is_refused(box: Box) -> None:
    """As with ``--profile tuned`` and no tuning for it."""

    def check(name: str, version: str) -> None:
        if version == "3":
            raise ModelFileError("TUNING_MISSING", "tune it first")

    box.activator = Activator(box.registry, box.root, DEFAULT_OPTIONS, check=check)

    assert box.refuse(lambda a: a.activate("tiny", "3")) == "TUNING_MISSING"


def test_tuned_server_wants_a_tuning_of_its_first_model(box: Box) -> None:
    """Of no other, and only where it is started with ``--profile tuned``."""
    config = ServerConfig(models=box.root, model="tiny", profile="tuned", cache=str(box.root / ".cache"))

    with pytest.raises(ModelFileError, match="--model tiny/3"):
        check_tuned(config, "tiny", "3")
    check_tuned(config, "other", "3")
    check_tuned(replace(config, profile="balanced"), "tiny", "3")


def test_only_what_a_trusted_key_has_signed_is_activated(box: Box) -> None:
    """Keys are read anew for each change, so that they can be replaced."""
    asked: list[int] = []

    def read_keys() -> list[TrustedKey]:
        asked.append(1)
        return []

    box.activator = Activator(box.registry, box.root, DEFAULT_OPTIONS, read_keys)

    for count in (1, 2):
        assert box.refuse(lambda a: a.activate("tiny", "3")).startswith("SIGNATURE_")
        assert len(asked) == count


@pytest.mark.openvino
def test_old_model_of_openvino_is_dropped_where_it_was_made(tmp_path: Path) -> None:
    """In the thread that outlives it; the new one answers."""
    from server.models.engines.openvino_engine import OpenVinoEngine

    add_version(tmp_path, "1", 0.04)
    options = EngineOptions(runtime="openvino")
    registry = ModelRegistry()
    registry.load(tmp_path, "tiny", options)
    add_version(tmp_path, "2", 0.06)
    engine = registry.get()._engine
    assert isinstance(engine, OpenVinoEngine)
    requests, answers = engine._requests, registry.get().run(PIXELS)
    del engine

    Activator(registry, tmp_path, options).activate("tiny", "2")

    gc.collect()
    wait_until(lambda: not requests)
    assert (registry.get().run(PIXELS) != answers).any()


def test_model_that_is_not_the_default_can_be_unloaded(tmp_path: Path) -> None:
    """And activated again, though not in an older version; the default stays."""
    add_version(tmp_path, "1")
    for version in ("1", "2"):
        write_model(tmp_path, replace(SPEC, name="other", version=version))
    box = start_box(tmp_path, "tiny,other")

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
    monkeypatch.setattr("server.models.engines.onnxruntime_engine.lower_priority", priority.lower_priority)
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
