"""Settings: flag, then environment, then default."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from server import processors
from server.config import ServerConfig, build_parser, environment_name_of, flag_of, read_config
from server.processors import count_processors
from tests.fakes import run_module


def test_flag_beats_environment_beats_default() -> None:
    """The documented precedence."""
    environment = {"STROKE_PORT": "1", "STROKE_QUEUE": "2", "STROKE_MODELS": "elsewhere"}

    config = read_config(["--port", "3"], environment)

    assert (config.port, config.queue, config.models, config.host) == (3, 2, Path("elsewhere"), "127.0.0.1")


@pytest.mark.parametrize(
    ("argv", "environment", "named"),
    [
        (["--port", "70000"], {}, "--port"),
        (["--port", "x"], {}, "--port"),
        ([], {"STROKE_PORT": "x"}, "STROKE_PORT"),
        ([], {"STROKE_QUEUE": "-1"}, "--queue"),
        (["--drain-seconds", "0"], {}, "--drain-seconds"),
        (["--drain-seconds", "nan"], {}, "--drain-seconds"),
        (["--log-level", "loud"], {}, "--log-level"),
        (["--host", ""], {}, "--host"),
        (["--precision", "int4"], {}, "--precision"),
        (["--profile", "fast"], {}, "--profile"),
        (["--runtime", "tensorflow"], {}, "--runtime"),
        (["--threads", "many"], {}, "--threads"),
        (["--threads", "0"], {}, "--threads"),
        (["--threads", "1025"], {}, "--threads"),
        (["--max-image-bytes", "1073741824"], {}, "--max-image-bytes"),
        (["--unknown", "1"], {}, "--unknown"),
    ],
)
def test_unusable_value_is_named(
    argv: list[str], environment: dict[str, str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line that names the setting."""
    with pytest.raises(SystemExit) as exit_:
        read_config(argv, environment)

    assert exit_.value.code == 2
    assert named in capsys.readouterr().err


def test_cache_is_where_the_desktop_standard_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of one's own, the one of the user, or none."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert ServerConfig().cache_folder == Path("/caches/strokeserve")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert ServerConfig().cache_folder == Path("/home/somebody/.cache/strokeserve")
    assert ServerConfig(cache="here").cache_folder == Path("here")
    assert ServerConfig(cache="off").cache_folder is None


def test_every_setting_has_flag_help_and_environment_name() -> None:
    """One definition: nothing can be set in one way only."""
    text = build_parser().format_help()

    for field in fields(ServerConfig):
        assert flag_of(field.name) in text
        assert field.metadata["help"]
        assert environment_name_of(field.name).startswith("STROKE_")


def test_help_has_examples_and_the_intended_use() -> None:
    """People learn what it is not for."""
    result = run_module("server", "--help")

    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert "Not a medical device" in result.stdout


@pytest.mark.parametrize(
    ("text", "expected"), [("max 100000", 2), ("150000 100000", 1), ("400000 100000", 2), ("50000 100000", 1)]
)
def test_processors_are_the_smaller_of_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    """A container's share counts, not the host's processors."""
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    monkeypatch.setattr(processors, "CGROUP_V2_QUOTA", quota)
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda pid: {0, 1})

    assert count_processors() == expected


def test_processors_without_cgroups_are_those_of_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cgroup files, no quota."""
    for name in ("CGROUP_V2_QUOTA", "CGROUP_V1_QUOTA", "CGROUP_V1_PERIOD"):
        monkeypatch.setattr(processors, name, tmp_path / "missing")
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda pid: {0, 1, 2})

    assert count_processors() == 3
