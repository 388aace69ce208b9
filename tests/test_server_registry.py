"""Which models are served under which names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from server.errors import ModelFileError, ModelNotFoundError, UnavailableError
from server.models.manifest import MODEL_FILE
from server.models.registry import ModelRegistry
from tests.fakes import SPEC, with_version, write_model


def load(root: Path, wanted: str = "") -> ModelRegistry:
    registry = ModelRegistry()
    registry.load(root, wanted)
    return registry


def test_newest_version_of_the_only_model_is_served(tmp_path: Path) -> None:
    """10 is newer than 9, and what is no version is not looked at."""
    for version in ("9", "10"):
        write_model(tmp_path, with_version(version))
    (tmp_path / ".staging-1").mkdir()
    (tmp_path / "tiny" / ".half").mkdir()

    registry = load(tmp_path)

    assert [model.spec.version for model in registry] == ["10"]
    assert registry.get().spec.version == "10"


def test_several_models_need_a_choice(tmp_path: Path) -> None:
    """The server does not guess which one answers; the message has the flag to copy."""
    write_model(tmp_path)
    write_model(tmp_path, replace(SPEC, name="other"))

    with pytest.raises(ModelFileError, match="--model other,tiny"):
        load(tmp_path)

    registry = load(tmp_path, "tiny, other")
    assert registry.default.spec.name == "tiny"
    assert [model.spec.name for model in registry] == ["other", "tiny"]


def test_request_chooses_by_name_and_version(tmp_path: Path) -> None:
    """Without a version the first wish wins; an unknown one is named in the error."""
    for version in ("1", "2"):
        write_model(tmp_path, with_version(version))
    registry = load(tmp_path, "tiny/1,tiny/2")

    assert registry.get("tiny").spec.version == "1"
    assert registry.get("tiny", "2").spec.version == "2"
    assert registry.get("", "2").spec.version == "2"
    for name, version in (("other", ""), ("tiny", "3")):
        with pytest.raises(ModelNotFoundError, match="served: tiny 1, tiny 2"):
            registry.get(name, version)


@pytest.mark.parametrize("wanted", ["nothing", "tiny/9", "../tiny/1", "tiny/../x", "/etc", ","])
def test_model_that_is_not_there_is_refused(tiny_models: Path, wanted: str) -> None:
    """No wish leads out of the models folder."""
    with pytest.raises(ModelFileError) as refusal:
        load(tiny_models, wanted)

    assert refusal.value.reason == "MODEL_NOT_FOUND"


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_folder_without_models_is_refused(tmp_path: Path, name: str) -> None:
    """The message says how to make one."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(ModelFileError, match="converter"):
        load(tmp_path / name)


def test_one_bad_model_among_several_is_an_error(tmp_path: Path) -> None:
    """All that are wanted are served, or none."""
    write_model(tmp_path)
    folder = write_model(tmp_path, with_version("2"))
    (folder / MODEL_FILE).write_bytes(b"")
    registry = ModelRegistry()

    with pytest.raises(ModelFileError):
        registry.load(tmp_path, "tiny/1,tiny/2")

    with pytest.raises(UnavailableError):
        registry.get()
