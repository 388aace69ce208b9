"""Settings: flag, then environment, then default."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from client.cli.connection import Connection
from proto import __version__
from server.config import ServerConfig, build_parser, read_config
from server.flags import (
    LineParser,
    list_settings,
    parse_settings,
    read_settings,
    render_table,
    setting,
)
from server.process.environment import CLIENT_NAMES
from server.process.numbers import read_number, read_whole
from tests.fakes import ROOT, run_module


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
        (["--workers", "100000"], {}, "--workers"),
        (["--workers", "9" * 5000], {}, "--workers"),
        (["--workers", "1_0"], {}, "--workers"),
        (["--queue", "1000000000"], {}, "--queue"),
        (["--streams", "0"], {}, "--streams"),
        (["--drain-seconds", "inf"], {}, "--drain-seconds"),
        (["--max-wait-seconds", "1e9"], {}, "--max-wait-seconds"),
        (["--min-image-side", "9000"], {}, "--min-image-side"),
        (["--max-image-pixels", "-1"], {}, "--max-image-pixels"),
        (["--socket-mode", "400"], {}, "--socket-mode"),
        (["--socket-mode", "rw"], {}, "--socket-mode"),
        (["--models", ""], {}, "--models"),
        (["--tls-cert", "a.pem"], {}, "--tls-key"),
        (["--tls-key", "a.key"], {}, "--tls-cert"),
        (["--tls-client-ca", "ca.pem"], {}, "--tls-cert"),
        ([], {"STROKE_INSECURE": "yes"}, "STROKE_INSECURE"),
        ([], {"STROKE_WORKERS": "100000"}, "STROKE_WORKERS"),
        ([], {"STROKE_MAX_IMAGE_SIDE": "20"}, "STROKE_MAX_IMAGE_SIDE"),
        ([], {"STROKE_LOG_LEVEL": "loud\nerror"}, "STROKE_LOG_LEVEL"),
    ],
)
def test_unusable_value_is_named(
    argv: list[str], environment: dict[str, str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line that names the setting, or the variable that it came from."""
    with pytest.raises(SystemExit) as exit_:
        read_config(argv, environment)

    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("server: error: ")
    assert line.endswith("(python -m server --help shows all settings)")
    assert len(line) < 400
    assert named in line


def test_every_number_has_finite_bounds() -> None:
    """Whatever is given beyond them is refused, with the bounds; the help says them too."""
    for one in list_settings(ServerConfig):
        if one.kind not in (int, float):
            continue
        bounds = one.details.bounds
        assert bounds is not None
        assert str(bounds) in one.help
        for wrong in (bounds.least - 1, bounds.most + 1, math.inf, math.nan):
            value = one.kind(wrong) if math.isfinite(wrong) else wrong
            with pytest.raises(ValueError, match=f"{one.flag} must be {bounds}"):
                ServerConfig(**{one.name: value})


def test_number_without_a_range_is_no_setting() -> None:
    """Whoever forgets it learns of it at the first start."""

    @dataclass(frozen=True)
    class Unbounded:
        size: int = setting(1, "a number without bounds")

    with pytest.raises(TypeError, match="size is a number and needs its range"):
        list_settings(Unbounded)


@dataclass(frozen=True)
class Kinds:
    """A setting of each kind that the server itself has not."""

    strict: bool = setting(False, "a switch")
    names: tuple[str, ...] = setting((), "several words")
    sizes: tuple[int, ...] = setting((1,), "several numbers", least=1, most=9, separator=",")
    near: float | None = setting(None, "a number or nothing", least=0, most=1)


def test_values_of_every_kind_are_read() -> None:
    """Switches, lists of words or with a separator, and what may be absent."""
    argv = ["--strict", "--names", "a", "b", "--sizes", "2, 3", "--near", ".5"]

    assert parse_settings(LineParser("x", ""), Kinds, argv) == Kinds(True, ("a", "b"), (2, 3), 0.5)
    assert parse_settings(LineParser("x", ""), Kinds, []) == Kinds()


def test_switch_in_the_environment_is_true_or_false(capsys: pytest.CaptureFixture[str]) -> None:
    """No other word is taken for one of them."""
    parser = LineParser("x", "")
    nothing = argparse.Namespace(**dict.fromkeys(Kinds.__dataclass_fields__))

    assert read_settings(parser, nothing, Kinds, environment={"STROKE_STRICT": "true"}).strict
    assert not read_settings(parser, nothing, Kinds, environment={"STROKE_STRICT": "false"}).strict
    with pytest.raises(SystemExit):
        read_settings(parser, nothing, Kinds, environment={"STROKE_STRICT": "no"})
    assert "STROKE_STRICT (--strict) must be true or false, got 'no'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "x", "1_0", "0x1", "²", "٣", "1.5.", "nan", "inf", "-inf", "1e999", "9" * 99])
def test_text_that_is_no_plain_number_is_none(text: str) -> None:
    """Python's own readers take more than people mean."""
    assert read_whole(text) is None
    assert read_number(text) is None


def warn(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Returns the warnings that an environment leads to."""
    read_config([], environment)
    return capsys.readouterr().err.splitlines()


def test_kubernetes_address_is_no_port(capsys: pytest.CaptureFixture[str]) -> None:
    """A Service called stroke sets STROKE_PORT for every container: one warning, and the default."""
    environment = {
        "STROKE_PORT": "tcp://10.96.0.12:50051",
        "STROKE_SERVICE_HOST": "10.96.0.12",
        "STROKE_SERVICE_PORT": "50051",
        "STROKE_SERVICE_PORT_GRPC": "50051",
        "STROKE_PORT_50051_TCP": "tcp://10.96.0.12:50051",
        "STROKE_PORT_50051_TCP_PROTO": "tcp",
        "STROKE_PORT_50051_TCP_PORT": "50051",
        "STROKE_PORT_50051_TCP_ADDR": "10.96.0.12",
        "STROKE_QUEUE_SERVICE_HOST": "10.96.0.13",
        "STROKE_QUEUE_PORT": "udp://[fd00::1]:53",
    }

    (line,) = warn(environment, capsys)

    assert line.startswith("server: warning: STROKE_PORT=tcp://10.96.0.12:50051 comes from Kubernetes")
    assert read_config([], environment).port == 50051
    assert read_config(["--port", "7"], environment).port == 7


def test_unknown_variables_are_named_in_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """With what was probably meant; the client's and empty ones are no concern of it."""
    environment = {
        "STROKE_PROT": "1",
        "STROKE_WORKER": "2",
        "STROKE_SERVER": "box:50051",
        "STROKE_TOKEN_FILE": "/token",
        "STROKE_TRACEBACK": "1",
        "STROKE_NOTHING": "",
        "OTHER": "1",
    }

    (line,) = warn(environment, capsys)

    assert "STROKE_PROT (did you mean STROKE_PORT?), STROKE_WORKER (did you mean STROKE_WORKERS?)" in line
    assert warn({"STROKE_TIMEOUT": "1"}, capsys) == []


def test_every_variable_of_the_client_is_known() -> None:
    """The two lists cannot drift apart."""
    assert {f"STROKE_{field.name.upper()}" for field in fields(Connection)} <= CLIENT_NAMES


def test_empty_variable_is_unset() -> None:
    """As compose files and units leave them."""
    assert read_config([], {"STROKE_PORT": "", "STROKE_MODELS": ""}) == ServerConfig()


def test_cache_is_where_the_desktop_standard_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of one's own, the one of the user, or none."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert ServerConfig().cache_folder == Path("/caches/strokeserve")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert ServerConfig().cache_folder == Path("/home/somebody/.cache/strokeserve")
    assert ServerConfig(cache="here").cache_folder == Path("here")
    assert ServerConfig(cache="off").cache_folder is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert ServerConfig().cache_folder == Path("/home/somebody/.cache/strokeserve")


@pytest.mark.parametrize("home", [None, "", "relative", "~"])
def test_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    """A container's random user is in no list, and nothing of it is an error."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)

    assert ServerConfig().cache_folder is None


def test_every_setting_has_flag_help_and_environment_name() -> None:
    """One definition: nothing can be set in one way only."""
    text = build_parser().format_help()

    for one in list_settings(ServerConfig):
        assert one.flag in text
        assert one.details.text
        assert one.variable.startswith("STROKE_")


def test_page_has_the_table_of_the_code() -> None:
    """Flag, environment name, default and meaning come from one definition: ``render_table`` makes the page's lines."""
    page = (ROOT / "docs" / "server.md").read_text("utf-8")

    assert render_table(ServerConfig) in page
    assert page.count("\n| ") == len(list_settings(ServerConfig)) + 2


def test_version_is_that_of_the_project() -> None:
    """One number, wherever it is asked for."""
    result = run_module("server", "--version")

    assert (result.returncode, result.stdout.strip()) == (0, __version__)


def test_help_has_examples_and_the_intended_use() -> None:
    """People learn what it is not for."""
    result = run_module("server", "--help")

    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert "Not a medical device" in result.stdout
