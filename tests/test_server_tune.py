"""Tuning: measured on this machine, written down, and used only where it is valid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from proto import stroke_pb2 as pb
from server.config import ServerConfig
from server.core import plan
from server.core.plan import describe_basis, find_place, make_plan, write_tuning
from server.errors import ModelFileError
from server.lifecycle.tune import list_choices, main
from server.models.engines.engine import EngineOptions
from tests.fakes import ROOT, build_tiny_model, run_module, run_server, write_model

pytestmark = pytest.mark.timed


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """Settings with a model and a cache of their own."""
    write_model(tmp_path / "models")
    return ServerConfig(models=tmp_path / "models", cache=str(tmp_path / "cache"), profile="tuned")


def choose(threads: int, busy_threads: int, workers: int) -> EngineOptions:
    """What a tuning may have come to."""
    return EngineOptions(threads=threads, busy_threads=busy_threads, workers=workers)


def write(config: ServerConfig, choice: EngineOptions) -> Path:
    folder, path = find_place(config)
    write_tuning(path, describe_basis(folder, config.runtime), choice)
    return path


def refuse(config: ServerConfig) -> str:
    """Returns the reason of the refusal, which names the command to run."""
    with pytest.raises(ModelFileError) as refusal:
        make_plan(config, 2)
    assert "python -m server tune" in refusal.value.message
    return refusal.value.reason


def test_what_was_measured_is_served(tmp_path: Path) -> None:
    """From the command to ``--profile tuned``, with both precisions."""
    write_model(tmp_path / "models", int8=build_tiny_model(gain=0.06))
    flags = ("--models", str(tmp_path / "models"), "--cache", str(tmp_path / "cache"))
    result = run_module("server", "tune", *flags, "--seconds", "1", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    choice = document["choice"]

    with run_server(tmp_path / "models", *flags[2:], "--profile", "tuned") as server, server.stub() as stub:
        model = stub.GetModel(pb.GetModelRequest(), timeout=60)

    assert Path(document["file"]).is_file()
    assert {row["precision"] for row in document["measured"]} == {"fp32", "int8"}
    assert all(row["latency_ms"] > 0 and row["images_per_second"] > 0 for row in document["measured"])
    assert model.profile == "tuned"
    assert [model.precision, model.threads, model.busy_threads, model.workers] == list(choice.values())


def test_table_marks_the_choice(config: ServerConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """People see what was compared."""
    assert main(["--models", str(config.models), "--cache", config.cache, "--seconds", "0.2"]) == 0

    output = capsys.readouterr()
    assert sum(line.startswith("* fp32") for line in output.out.splitlines()) == 1
    assert "--profile tuned" in output.out
    assert "round 3/3 done" in output.err


def test_flags_win_over_the_tuning(config: ServerConfig) -> None:
    """As over any profile."""
    write(config, choose(2, 1, 3))
    own = ServerConfig(models=config.models, cache=config.cache, profile="tuned", threads="4", workers=5)

    tuned, flagged = make_plan(config, 2).options, make_plan(own, 2).options

    assert (tuned.precision, tuned.threads, tuned.busy_threads, tuned.workers) == ("fp32", 2, 1, 3)
    assert (flagged.threads, flagged.busy_threads, flagged.workers) == (4, 4, 5)


def test_server_without_a_tuning_says_how_to_make_one(config: ServerConfig) -> None:
    """One line, and exit code 1."""
    flags = ("--models", str(config.models), "--cache", config.cache, "--port", "0")

    result = run_module("server", *flags, "--profile", "tuned", "--log-level", "error")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "python -m server tune" in line
    assert "TUNING_MISSING" in line


def test_tuning_for_another_model_is_outdated(config: ServerConfig, tmp_path: Path) -> None:
    """A new file under the same name is another model."""
    path = write(config, choose(1, 1, 1))
    write_model(tmp_path / "other", data=build_tiny_model(gain=0.06))
    other = ServerConfig(models=tmp_path / "other", cache=config.cache, profile="tuned")

    assert path.is_file()
    assert refuse(other) == "TUNING_OUTDATED"


@pytest.mark.parametrize("name", ["describe_processor", "count_processors"])
def test_tuning_of_another_machine_is_outdated(
    config: ServerConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Home folders travel."""
    write(config, choose(1, 1, 1))
    monkeypatch.setattr(plan, name, lambda: "another")

    assert refuse(config) == "TUNING_OUTDATED"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 1, "basis": {}, "choice": {}}', '{"schema": 9, "basis": {}, "choice": {}}']
)
def test_damaged_tuning_is_outdated(config: ServerConfig, text: str) -> None:
    """Never a traceback."""
    write(config, choose(1, 1, 1)).write_text(text)

    assert refuse(config) == "TUNING_OUTDATED"


def test_tuning_needs_a_cache(config: ServerConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no other place for it."""
    assert main(["--models", str(config.models), "--cache", "off", "--seconds", "1"]) == 1
    assert "--cache off" in capsys.readouterr().err


def test_default_comes_first_among_the_ways() -> None:
    """Among those that differ by noise alone it is kept; none is measured twice."""
    assert list_choices(EngineOptions(), ["fp32"], 2)[0] == choose(2, 1, 2)
    assert len(list_choices(EngineOptions(), ["fp32"], 1)) == 2


def test_help_has_examples() -> None:
    """And says when to tune again."""
    result = run_module("server", "tune", "--help")

    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert "Run it again" in result.stdout


@pytest.mark.parametrize("block", ["folder", "file"])
def test_place_is_tried_before_the_measuring(
    config: ServerConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    block: str,
) -> None:
    """Nobody waits a minute to hear that the result cannot be kept."""
    monkeypatch.setattr("server.lifecycle.tune.measure_all", lambda *arguments: pytest.fail("it has measured"))
    if block == "folder":
        (tmp_path / "cache").write_text("a file is in the way")
    else:
        find_place(config)[1].mkdir(parents=True)

    assert main(["--models", str(config.models), "--cache", config.cache]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "TUNING_NOT_WRITABLE" in line


def test_tuning_is_written_as_a_whole(config: ServerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the one before, and nothing beside it."""
    path = write(config, choose(1, 1, 1))
    before = path.read_text()

    def fill(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan.os, "fsync", fill)
    with pytest.raises(ModelFileError, match="No space left on device"):
        write(config, choose(2, 2, 2))

    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("seconds", ["0", "inf", "nan", "1e9", "x"])
def test_length_of_the_measuring_has_bounds(
    config: ServerConfig, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    """As every number."""
    with pytest.raises(SystemExit):
        main(["--models", str(config.models), "--seconds", seconds])

    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"server tune: error: --seconds must be (a number, )?0\.1 to 3600, got ", line)


def test_user_without_a_home_is_told_to_give_a_cache(
    config: ServerConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not called switched off."""
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    assert main(["--models", str(config.models)]) == 1
    assert "this user has no home folder" in capsys.readouterr().err


def test_result_that_nobody_reads_is_kept(config: ServerConfig) -> None:
    """The file is the result; what is printed only tells of it."""
    command = [sys.executable, "-m", "server", "tune", "--models", str(config.models), "--cache", config.cache]
    shell = ["sh", "-c", 'exec "$@" >/dev/full 2>/dev/full', "sh", *command, "--seconds", "0.2"]

    assert subprocess.run(shell, cwd=ROOT, timeout=120).returncode == 0
    assert find_place(config)[1].is_file()
