"""The home folder of a user who may have none."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.machine.folders import find_cache, find_home
from tests.fakes import ROOT


@pytest.mark.parametrize(
    ("environment", "home"),
    [({"HOME": "/home/a"}, Path("/home/a")), ({"HOME": ""}, None), ({"HOME": "a"}, None), ({}, None)],
)
def test_home_is_absolute_or_none(
    environment: dict[str, str], home: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without HOME the list of users is asked, which a random user is not in."""
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)

    assert find_home(environment) == home
    assert find_cache(environment) == (home and home / ".cache")
    assert find_cache({**environment, "XDG_CACHE_HOME": "/caches"}) == Path("/caches")


@pytest.mark.tensorflow
def test_weights_of_keras_need_no_home_where_their_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without either, an error of training says what to do."""
    pytest.importorskip("keras")
    from training.errors import TrainingError
    from training.fit.published import find_keras_folder

    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("KERAS_HOME", "/keras")
    assert find_keras_folder() == Path("/keras")
    monkeypatch.delenv("KERAS_HOME")
    with pytest.raises(TrainingError, match="this user has no home folder"):
        find_keras_folder()


def test_home_is_asked_for_in_one_place() -> None:
    """Python's own ways raise where there is none."""
    asking = {
        str(path.relative_to(ROOT))
        for package in ("server", "converter", "training", "client")
        for path in (ROOT / package).rglob("*.py")
        if any(word in path.read_text() for word in ("expanduser", "Path.home", "getpwuid"))
    }

    assert asking == {"server/machine/folders.py"}
