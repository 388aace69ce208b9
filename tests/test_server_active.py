"""``active.json``: a restart serves what was served before, and nothing else silently."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from server.errors import ModelFileError
from server.models.active import (
    ACTIVE_FILE,
    MOST_BYTES,
    MOST_HISTORY,
    Active,
    ActiveModel,
    Canary,
    Release,
    change_active,
    read_active,
)
from server.models.manifest import MODEL_FILE
from server.models.registry import ModelRegistry
from server.models.repository import read_release
from tests.fakes import build_tiny_model, rewrite_manifest, with_version, write_model

ONE, TWO, THREE = (Release(version, version * 64) for version in "123")
ENTRY = ActiveModel(TWO, (ONE,), Canary(THREE, 2.5), THREE)


def load(root: Path, wanted: str = "") -> ModelRegistry:
    registry = ModelRegistry()
    registry.load(root, wanted)
    return registry


def make_active(root: Path, *versions: str, canary: str = "", shadow: str = "") -> dict[str, Release]:
    """Writes models, and that they were active in this order."""
    everything = [*versions, *filter(None, [canary, shadow])]
    releases = {
        version: read_release(root, write_model(root, with_version(version)))[0]
        for version in dict.fromkeys(everything)
    }
    *history, stable = (releases[version] for version in versions)
    trial = Canary(releases[canary], 50.0) if canary else None
    entry = ActiveModel(stable, tuple(history), trial, releases[shadow] if shadow else None)
    change_active(root, "tiny", lambda before: entry)
    return releases


def test_what_is_written_is_read() -> None:
    """With everything that there can be, and with nothing."""
    for active in (Active(), Active({"tiny": ENTRY}), Active({"a": ActiveModel(ONE), "b": ENTRY})):
        assert Active.from_json(active.to_json()) == active


def test_history_is_bounded() -> None:
    """A year of updates is not carried along; going back takes the newest entry."""
    entry = ActiveModel(Release("0", ONE.digest))
    for number in range(1, 100):
        entry = entry.follow(Release(str(number), ONE.digest))

    assert len(entry.history) == MOST_HISTORY
    assert entry.go_back().stable.version == "98"


def test_trials_end_when_another_version_becomes_stable() -> None:
    """A canary could be older then, and a shadow was compared with another model."""
    assert ENTRY.follow(THREE) == ActiveModel(THREE, (ONE, TWO))
    assert ENTRY.go_back() == ActiveModel(ONE)


def corrupt(change: Any) -> str:
    document = json.loads(Active({"tiny": ENTRY}).to_json())
    change(document, document["models"]["tiny"])
    return json.dumps(document)


UNUSABLE = {
    "empty": "",
    "half": Active({"tiny": ENTRY}).to_json()[:-20],
    "no object": "[]",
    "other schema": corrupt(lambda file, entry: file.update(schema=2)),
    "unknown key": corrupt(lambda file, entry: entry.update(extra=1)),
    "missing key": corrupt(lambda file, entry: entry.pop("history")),
    "digest": corrupt(lambda file, entry: entry["stable"].update(digest="1")),
    "traversal": corrupt(lambda file, entry: entry["stable"].update(version="../1")),
    "traversal of a name": corrupt(lambda file, entry: file["models"].update({"../tiny": entry})),
    "percent": corrupt(lambda file, entry: entry["canary"].update(percent=100)),
    "not a number": corrupt(lambda file, entry: entry["canary"].update(percent=float("nan"))),
    "long history": corrupt(lambda file, entry: entry.update(history=[vars(ONE)] * (MOST_HISTORY + 1))),
    "key twice": '{"schema": 1, "schema": 1, "models": {}}',
    "large": " " * (MOST_BYTES + 1),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_file_that_cannot_be_read_is_no_reason_to_serve_something_else(kind: str, tmp_path: Path) -> None:
    """The start is refused, unless it is said which version is wanted."""
    write_model(tmp_path)
    (tmp_path / ACTIVE_FILE).write_text(UNUSABLE[kind])

    assert load(tmp_path, "tiny/1").default.spec.version == "1"

    with pytest.raises(ModelFileError, match="--model NAME/VERSION") as refusal:
        load(tmp_path)

    assert refusal.value.reason == "ACTIVE_INVALID"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_something_else_in_its_place_holds_up_nothing(kind: str, tmp_path: Path) -> None:
    """It is refused as well, at once."""
    write_model(tmp_path)
    os.mkdir(tmp_path / ACTIVE_FILE) if kind == "folder" else os.mkfifo(tmp_path / ACTIVE_FILE)

    with pytest.raises(ModelFileError, match="regular file"):
        read_active(tmp_path)


def test_restart_serves_what_was_active(tmp_path: Path) -> None:
    """Not what is newest, and with what was on trial."""
    make_active(tmp_path, "1", "2", canary="3", shadow="4")
    write_model(tmp_path, with_version("5"))

    registry = load(tmp_path)

    family = registry.snapshot.default
    assert [(channel, served.release.version) for channel, served in family.channels] == [
        ("stable", "2"),
        ("canary", "3"),
        ("shadow", "4"),
    ]
    assert family.percent == 50
    assert [model.spec.version for model in registry] == ["2", "3"], "a shadow answers nobody"


def test_model_that_was_never_activated_is_served_in_its_newest_version(tmp_path: Path) -> None:
    """What the file says of another one does not matter."""
    make_active(tmp_path, "1")
    write_model(tmp_path, with_version("2"))
    change_active(tmp_path, "other", lambda before: ENTRY)

    assert load(tmp_path, "tiny").default.spec.version == "1"


def test_version_that_is_named_wins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so, and nothing is on trial beside it."""
    make_active(tmp_path, "1", "2", canary="3")

    with caplog.at_level(logging.WARNING):
        family = load(tmp_path, "tiny/1").snapshot.default

    assert [served.release.version for _, served in family.channels] == ["1"]
    assert "not 2, which is active" in caplog.text


@pytest.mark.parametrize("how", ["other model", "other tolerance", "gone"])
def test_altered_active_version_is_not_served_silently(how: str, tmp_path: Path) -> None:
    """Neither it, nor an older one in its place: the refusal names the version before, and that can be served."""
    make_active(tmp_path, "1", "2")
    folder = tmp_path / "tiny" / "2"
    if how == "other tolerance":
        rewrite_manifest(folder, lambda document: document["files"][MODEL_FILE].update(tolerance=0.1))
    else:
        folder.rename(tmp_path / ".elsewhere")
        if how == "other model":
            write_model(tmp_path, with_version("2"), build_tiny_model(with_version("2"), gain=0.06))

    with pytest.raises(ModelFileError) as refusal:
        load(tmp_path)

    assert refusal.value.reason == ("MODEL_NOT_FOUND" if how == "gone" else "RELEASE_ALTERED")
    assert "--model tiny/1" in refusal.value.message
    assert load(tmp_path, "tiny/1").default.spec.version == "1"


def test_trial_that_is_lost_keeps_nobody_from_being_served(tmp_path: Path) -> None:
    """It is known, and shown to whoever asks for the state."""
    make_active(tmp_path, "1", canary="2")
    (tmp_path / "tiny" / "2" / MODEL_FILE).write_bytes(b"")

    registry = load(tmp_path)

    assert [model.spec.version for model in registry] == ["1"]
    assert registry.faults["tiny", "canary"].reason == "MODEL_FILE_TRUNCATED"


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """Nothing is changed then. (A folder that is gone is one, for root can write to all others.)"""
    with pytest.raises(ModelFileError) as refusal:
        change_active(tmp_path / "gone", "tiny", lambda before: ENTRY)

    assert refusal.value.reason == "ACTIVE_NOT_WRITABLE"


def test_what_a_kill_has_left_is_written_over(tmp_path: Path) -> None:
    """It does not pile up, whatever it is."""
    (tmp_path / ".active.json.new").write_text("{" * 10_000)

    change_active(tmp_path, "tiny", lambda before: ENTRY)

    assert os.listdir(tmp_path) == [ACTIVE_FILE]
    assert read_active(tmp_path).models == {"tiny": ENTRY}
