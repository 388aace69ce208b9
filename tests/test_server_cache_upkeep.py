"""The cache of optimised graphs forgets what nobody uses any more, and nothing else."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.models.engines import cache_upkeep, graph_cache, onnxruntime_engine
from server.models.engines.cache_upkeep import MOST_ENTRIES, MOST_UNUSED_SECONDS, STAGING, STAGING_SECONDS, hold_builds
from server.models.engines.engine import EngineOptions
from server.models.runtime import load_model
from tests.fakes import ROOT, wait_until, with_version, write_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder; all models count as large."""
    monkeypatch.setattr(onnxruntime_engine, "LARGE_MODEL_BYTES", 1)
    return tmp_path / "cache"


def load(tmp_path: Path, cache: Path, version: str = "1") -> None:
    """Loads a version of the tiny model, which is made if it is not there."""
    folder = tmp_path / "models" / "tiny" / version
    load_model(
        folder if folder.exists() else write_model(tmp_path / "models", with_version(version)),
        EngineOptions(cache=cache),
    )


def list_entries(cache: Path) -> set[str]:
    return {path.name for path in (cache / "graphs").iterdir() if not path.name.startswith(".lock")}


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_entry_of_an_older_runtime_is_removed(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an update of the runtime; those of other models and other processors stay."""
    load(tmp_path, cache, "2")
    monkeypatch.setattr(graph_cache, "describe_processor", lambda: "another")
    load(tmp_path, cache)
    monkeypatch.undo()
    monkeypatch.setattr(onnxruntime_engine, "LARGE_MODEL_BYTES", 1)
    kept = list_entries(cache)
    load(tmp_path, cache)
    (old,) = list_entries(cache) - kept
    monkeypatch.setattr(onnxruntime_engine.OnnxRuntimeEngine, "version", "99.0")

    load(tmp_path, cache)

    assert old not in list_entries(cache)
    assert len(list_entries(cache) - kept) == 1
    assert kept < list_entries(cache)


def test_entries_of_older_formats_and_unreadable_ones_are_removed(tmp_path: Path, cache: Path) -> None:
    """What no version of now can read; what is not of the cache is not touched."""
    graphs = cache / "graphs"
    graphs.mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    for name in (f"{'a' * 32}-{'b' * 64}", "c" * 32, "notes"):
        (graphs / name).mkdir()
        (graphs / name / "graph.onnx").touch()
    (graphs / "readme.txt").touch()

    load(tmp_path, cache)

    (entry,) = list_entries(cache) - {"notes", "readme.txt"}
    assert len(entry) == 32
    assert entry != "c" * 32
    assert (graphs / "notes" / "graph.onnx").exists()


def test_least_used_entries_are_removed_when_they_are_too_many(tmp_path: Path, cache: Path) -> None:
    """Use counts, not age."""
    names = []
    for version in range(MOST_ENTRIES + 3):
        before = list_entries(cache) if cache.exists() else set()
        load(tmp_path, cache, str(version + 1))
        names += list_entries(cache) - before
        for index, name in enumerate(names):
            if (cache / "graphs" / name).exists():
                age(cache / "graphs" / name, 1000 - index)
        load(tmp_path, cache, "1")

    assert len(list_entries(cache)) == MOST_ENTRIES
    assert names[0] in list_entries(cache)
    assert names[1] not in list_entries(cache)


def test_entries_are_removed_when_they_are_too_large(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one in use stays, whatever its size."""
    load(tmp_path, cache, "1")
    monkeypatch.setattr(cache_upkeep, "MOST_BYTES", 10)
    load(tmp_path, cache, "2")

    assert len(list_entries(cache)) == 1


def test_entry_that_was_not_used_for_long_is_removed(tmp_path: Path, cache: Path) -> None:
    """A model that is no longer served leaves nothing for ever; one that is, stays."""
    load(tmp_path, cache, "1")
    (old,) = list_entries(cache)
    age(cache / "graphs" / old, MOST_UNUSED_SECONDS - 100)
    load(tmp_path, cache, "2")
    assert old in list_entries(cache)

    age(cache / "graphs" / old, MOST_UNUSED_SECONDS + 100)
    load(tmp_path, cache, "2")
    assert old not in list_entries(cache)


def test_what_killed_starts_have_left_is_removed(tmp_path: Path, cache: Path) -> None:
    """Also when the graph is there: at once if it was under the lock, after an hour if it was not."""
    load(tmp_path, cache)
    entries = list_entries(cache)
    fresh, old = (cache / "graphs" / f".staging-{name}" for name in ("fresh", "old"))
    killed = cache / "graphs" / f"{STAGING}killed"
    for path in (fresh, old, killed):
        path.mkdir()
        (path / "graph.onnx").touch()
    age(old, STAGING_SECONDS + 100)

    load(tmp_path, cache)

    assert list_entries(cache) == {*entries, fresh.name}


def test_what_another_server_is_writing_stays(tmp_path: Path, cache: Path) -> None:
    """It holds the lock for as long as it lives."""
    load(tmp_path, cache)
    entries = list_entries(cache)
    written = cache / "graphs" / f"{STAGING}written"
    written.mkdir()
    place = os.open(cache / "graphs", os.O_RDONLY)
    with hold_builds(place):
        load(tmp_path, cache)
        load(tmp_path, cache, "2")
        assert written.exists()
    os.close(place)

    load(tmp_path, cache)

    assert not written.exists()
    assert entries < list_entries(cache)


def test_lock_that_is_never_free_holds_up_no_start(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is written without it."""
    monkeypatch.setattr(cache_upkeep, "LOCK_SECONDS", 0.1)
    (cache / "graphs").mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    with (cache / "graphs" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        load(tmp_path, cache)

    assert len(list_entries(cache)) == 1


BUILD = """
import sys, time
from pathlib import Path
from server.models.engines import onnxruntime_engine
from server.models.engines.engine import EngineOptions
from server.models.runtime import load_model
onnxruntime_engine.LARGE_MODEL_BYTES = 1
def write(data, path):
    path.touch()
    time.sleep(600)
onnxruntime_engine.write_optimised = write
load_model(Path(sys.argv[1]), EngineOptions(cache=Path(sys.argv[2])))
"""


def test_server_killed_while_it_writes_leaves_nothing_for_the_next(tmp_path: Path, cache: Path) -> None:
    """SIGKILL, as by the kernel when memory runs out; while it lives, nobody takes its work away."""
    folder = write_model(tmp_path / "models")
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(folder), str(cache)], cwd=ROOT)
    with process:
        try:
            wait_until(lambda: list((cache / "graphs").glob(".staging-*/graph.onnx")))
            load_model(folder, EngineOptions(cache=cache))
            assert len(list((cache / "graphs").glob(".staging-*"))) == 1
        finally:
            process.send_signal(signal.SIGKILL)

    load_model(folder, EngineOptions(cache=cache))

    assert list((cache / "graphs").glob(".staging-*")) == []
    assert len(list_entries(cache)) == 1


def test_two_servers_that_start_together_share_one_entry(tmp_path: Path, cache: Path) -> None:
    """Neither fails, whoever is faster."""
    folder = write_model(tmp_path / "models")
    code = BUILD.replace("    time.sleep(600)\n", "    real(data, path)\n").replace(
        "def write", "real = onnxruntime_engine.write_optimised\ndef write"
    )
    servers = [
        subprocess.Popen([sys.executable, "-c", code, str(folder), str(cache)], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for server in servers:
        assert server.communicate(timeout=60)[1] == b""
        assert server.returncode == 0

    assert len(list_entries(cache)) == 1
