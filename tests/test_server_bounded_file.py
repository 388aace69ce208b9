"""What may lie in the place of a file: nothing there holds up the start, or is read without end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.config import ServerConfig
from server.core.plan import find_place, read_tuning
from server.errors import ModelFileError
from server.machine.bounded_file import read_regular
from server.models.manifest import MANIFEST_FILE, MODEL_FILE
from server.models.repository import MOST_ENTRIES, find_wanted
from server.models.runtime import load_model
from tests.fakes import run_module, write_model


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_circle(path: Path) -> None:
    path.symlink_to(path.name)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


KINDS = [make_pipe, make_endless, make_circle, make_folder, make_sparse]


@pytest.mark.parametrize("make", KINDS)
def test_it_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """At once, with a text that says why."""
    make(tmp_path / "file")

    with pytest.raises(OSError, match=r"not a regular file|symbolic links|more than 100 bytes"):
        read_regular(tmp_path / "file", 100)


def test_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    """The bound itself is allowed."""
    (tmp_path / "file").write_bytes(b"x" * 100)

    assert read_regular(tmp_path / "file", 100) == b"x" * 100
    with pytest.raises(OSError, match="more than 99 bytes"):
        read_regular(tmp_path / "file", 99)


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_impossible_path_is_an_ordinary_error(path: str) -> None:
    """No traceback of another kind."""
    with pytest.raises(OSError, match=r"possible|No such file"):
        read_regular(path, 100)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST_FILE])
def test_model_folder_with_it_is_refused(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    """In the place of the model as in that of the manifest."""
    folder = write_model(tmp_path)
    (folder / name).unlink()
    make(folder / name)

    with pytest.raises(ModelFileError) as refusal:
        load_model(folder)

    assert refusal.value.reason in ("MODEL_FILE_MISSING", "MODEL_FILE_ALTERED", "MANIFEST_INVALID")
    assert refusal.value.message.isprintable()


def test_start_ends_with_it(tmp_path: Path) -> None:
    """A named pipe in the place of a model held it up for ever."""
    folder = write_model(tmp_path)
    (folder / MODEL_FILE).unlink()
    os.mkfifo(folder / MODEL_FILE)

    result = run_module("server", "--models", str(tmp_path), "--port", "0")

    assert result.returncode == 1
    assert "a named pipe, not a regular file" in result.stderr


@pytest.mark.parametrize("make", KINDS)
def test_tuning_is_refused_with_it(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """As one that is outdated."""
    write_model(tmp_path / "models")
    config = ServerConfig(models=tmp_path / "models", cache=str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    make(find_place(config)[1])

    with pytest.raises(ModelFileError) as refusal:
        read_tuning(config)

    assert refusal.value.reason == "TUNING_OUTDATED"


def test_folder_with_too_many_entries_is_no_folder_of_models(tmp_path: Path) -> None:
    """It is not listed to its end."""
    for number in range(MOST_ENTRIES + 1):
        (tmp_path / str(number)).touch()

    with pytest.raises(ModelFileError, match="more than 10,000 entries"):
        find_wanted(tmp_path, "")


def test_many_models_are_not_all_named(tmp_path: Path) -> None:
    """The message stays short."""
    for number in range(500):
        (tmp_path / f"model-{number}").mkdir()

    with pytest.raises(ModelFileError, match="and 490 more") as refusal:
        find_wanted(tmp_path, "")

    assert len(refusal.value.message) < 500


def test_model_that_is_wanted_twice_is_loaded_once(tmp_path: Path) -> None:
    """Where its name and its version lead to the same folder."""
    folder = write_model(tmp_path)

    assert find_wanted(tmp_path, "tiny,tiny/1") == [folder]


@pytest.mark.parametrize("models", ["a\0b", "\ud800", "circle", "file", "with\nline"])
def test_strange_models_folder_is_refused_in_one_line(tmp_path: Path, models: str) -> None:
    """Whatever its name is, or what lies there."""
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()

    with pytest.raises(ModelFileError) as refusal:
        find_wanted(tmp_path / models, "")
    with pytest.raises(ModelFileError) as other:
        load_model(tmp_path / models)

    assert refusal.value.message.isprintable()
    assert other.value.message.isprintable()


def test_folder_beside_that_cannot_be_entered_disturbs_nothing(tmp_path: Path) -> None:
    """A link in a circle is not a model."""
    write_model(tmp_path)
    (tmp_path / "other").symlink_to("other")

    assert [folder.parent.name for folder in find_wanted(tmp_path, "")] == ["tiny"]
