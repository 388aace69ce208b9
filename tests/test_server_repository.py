"""Which version of a model a server takes from its models folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from server.errors import ModelFileError
from server.models.active import ACTIVE_FILE
from server.models.manifest import MANIFEST_FILE, MODEL_FILE
from server.models.registry import ModelRegistry
from server.models.repository import find_wanted
from tests.fakes import with_version, write_model


def load(root: Path, wanted: str = "") -> list[str]:
    """The versions that are served."""
    registry = ModelRegistry()
    registry.load(root, wanted)
    return [model.spec.version for model in registry]


def cut(folder: Path) -> None:
    path = folder / MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1])


HALF_COPIED: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda folder: (folder / MANIFEST_FILE).unlink(),
    "half a manifest": lambda folder: (folder / MANIFEST_FILE).write_text("{"),
    "no model": lambda folder: (folder / MODEL_FILE).unlink(),
    "half a model": cut,
    "a folder for a model": lambda folder: ((folder / MODEL_FILE).unlink(), (folder / MODEL_FILE).mkdir()),
    "nothing": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("fault", HALF_COPIED)
def test_half_copied_version_does_not_keep_a_whole_one_from_being_served(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is passed over, and the log says what is wrong with it."""
    write_model(tmp_path)
    HALF_COPIED[fault](write_model(tmp_path, with_version("2")))

    with caplog.at_level(logging.WARNING):
        assert load(tmp_path) == ["1"]

    assert "passed over" in caplog.text
    assert str(tmp_path / "tiny" / "2") in caplog.text


@pytest.mark.parametrize("fault", HALF_COPIED)
def test_half_copied_version_alone_is_refused_with_its_fault(fault: str, tmp_path: Path) -> None:
    """There is nothing else to serve."""
    HALF_COPIED[fault](write_model(tmp_path))

    with pytest.raises(ModelFileError, match="tiny/1"):
        load(tmp_path)


def test_half_copied_version_that_is_asked_for_is_refused(tmp_path: Path) -> None:
    """Nothing else is served in its place."""
    write_model(tmp_path)
    cut(write_model(tmp_path, with_version("2")))

    with pytest.raises(ModelFileError, match="truncated"):
        load(tmp_path, "tiny/2")


def test_altered_version_is_not_passed_over(tmp_path: Path) -> None:
    """All of it is there, so it was served before: an older version would not be what is expected here."""
    write_model(tmp_path)
    path = write_model(tmp_path, with_version("2")) / MODEL_FILE
    path.write_bytes(bytes(len(path.read_bytes())))

    with pytest.raises(ModelFileError, match="altered"):
        load(tmp_path)


def test_two_spellings_of_a_version_are_ambiguous(tmp_path: Path) -> None:
    """The server does not guess which is newer, unless it is told, or a newer one is there."""
    for version in ("1", "01"):
        write_model(tmp_path, with_version(version))

    with pytest.raises(ModelFileError, match="01, 1 are the same version") as refusal:
        load(tmp_path)

    assert refusal.value.reason == "MODEL_AMBIGUOUS"
    assert load(tmp_path, "tiny/01") == ["01"]
    write_model(tmp_path, with_version("2"))
    assert load(tmp_path) == ["2"]


@pytest.mark.parametrize("linked", ["name", "version", MODEL_FILE, MANIFEST_FILE])
def test_link_out_of_the_models_folder_is_refused(linked: str, tmp_path: Path) -> None:
    """Of a name, a version or a file: what is served is what lies there."""
    root, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    folder = write_model(root)
    path = {"name": folder.parent, "version": folder}.get(linked, folder / linked)
    path.rename(elsewhere)
    path.symlink_to(elsewhere)

    for wanted in ("tiny", "tiny/1"):
        with pytest.raises(ModelFileError, match="leads out of the models folder") as refusal:
            load(root, wanted)
        assert refusal.value.reason == "MODEL_OUTSIDE"


def test_links_within_the_models_folder_are_followed(tmp_path: Path) -> None:
    """As volumes of Kubernetes have them; and the models folder itself may be one."""
    write_model(tmp_path / "real")
    (tmp_path / "real" / "tiny").rename(tmp_path / "real" / "..data")
    (tmp_path / "real" / "tiny").symlink_to("..data")
    (tmp_path / "models").symlink_to(tmp_path / "real")

    assert load(tmp_path / "models") == ["1"]


def test_what_a_killed_change_has_left_disturbs_nothing(tmp_path: Path) -> None:
    """A staged file is no model and not what is active."""
    folder = write_model(tmp_path)
    (tmp_path / f".{ACTIVE_FILE}.new").write_text("{")

    assert find_wanted(tmp_path, "") == [folder]
