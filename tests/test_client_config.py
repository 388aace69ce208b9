"""Settings of the client: checked before anything is sent; flags and STROKE_* names of the connection."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from pathlib import Path

import pytest
import trustme

from client import KeepAliveConfig, RetryConfig, StrokeClient, TLSConfig, _config
from client._config import DEFAULT_TARGET, ClientConfig
from client.cli.connection import Connection, add_connection_flags, read_connection


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_timeout_must_be_finite_and_positive(timeout: float) -> None:
    """No client waits for ever."""
    with pytest.raises(ValueError, match="timeout"):
        StrokeClient(timeout=timeout)
    with StrokeClient() as client:
        with pytest.raises(ValueError, match="timeout"):
            client.predict(b"x", timeout=timeout)
        with pytest.raises(ValueError, match="timeout"):
            client.predict_many([], timeout=timeout)


def test_size_limit_must_be_positive() -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match="max_image_bytes"):
        StrokeClient(max_image_bytes=0)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: RetryConfig(max_attempts=0), "max_attempts"),
        (lambda: RetryConfig(max_attempts=6), "max_attempts"),
        (lambda: RetryConfig(initial_backoff=0), "initial_backoff"),
        (lambda: RetryConfig(initial_backoff=3, max_backoff=2), "max_backoff"),
        (lambda: RetryConfig(max_backoff=float("nan")), "max_backoff"),
        (lambda: RetryConfig(max_backoff=float("inf")), "max_backoff"),
        (lambda: RetryConfig(backoff_multiplier=0.5), "backoff_multiplier"),
        (lambda: RetryConfig(throttle_tokens=0), "throttle_tokens"),
        (lambda: RetryConfig(throttle_tokens=1001), "throttle_tokens"),
        (lambda: KeepAliveConfig(interval=9.9), "interval"),
        (lambda: KeepAliveConfig(interval=float("inf")), "interval"),
        (lambda: KeepAliveConfig(timeout=0), "timeout"),
        (lambda: TLSConfig(certificate="c.pem"), "certificate and its key"),
        (lambda: TLSConfig(key="k.pem"), "certificate and its key"),
        (lambda: StrokeClient("a,b", tls=True), "--tls-name"),
        (lambda: StrokeClient(token="with space"), "token"),
        (lambda: StrokeClient(token=""), "token"),
    ],
)
def test_setting_out_of_range_is_named(make, name: str) -> None:
    """What gRPC would clamp, ignore or stumble over later is refused at once, by name."""
    with pytest.raises(ValueError, match=name):
        make()


@pytest.mark.parametrize("kind", [TLSConfig, RetryConfig, KeepAliveConfig, ClientConfig])
def test_settings_are_frozen_and_by_keyword(kind: type) -> None:
    """No setting changes under a running client, and none is given by position."""
    assert all(field.kw_only for field in dataclasses.fields(kind))
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [TLSConfig, RetryConfig, KeepAliveConfig])
def test_every_public_setting_is_documented(kind: type) -> None:
    """Field by field, in the source."""
    source = inspect.getsource(_config)
    body = source[source.index(f"class {kind.__name__}") :]

    for field in dataclasses.fields(kind):
        definition = body[body.index(f"    {field.name}: ") :]
        assert definition.splitlines()[1].startswith('    """'), field.name


def read(*arguments: str, **environment: str) -> Connection:
    parser = argparse.ArgumentParser(prog="client")
    add_connection_flags(parser)
    return read_connection(parser, parser.parse_args(arguments), environment)


def test_nothing_given_is_the_default() -> None:
    """Without flags and environment: this machine, plain text, no token."""
    assert read() == Connection()
    assert read().server == DEFAULT_TARGET


def test_flag_wins_over_environment_and_empty_is_unset() -> None:
    """flag > environment > default; an empty variable, as compose files leave it, is no value."""
    environment = {"STROKE_SERVER": "box:1", "STROKE_TIMEOUT": "3", "STROKE_TLS_CA": "", "STROKE_TOKEN_FILE": ""}

    assert read(**environment) == Connection(server="box:1", timeout=3.0)
    assert read("--server", "other", "--timeout", "4", **environment) == Connection(server="other:50051", timeout=4.0)


def test_every_flag_has_its_variable(tmp_path: Path) -> None:
    """``--tls-ca`` is ``STROKE_TLS_CA``, and so for all."""
    authority = trustme.CA()
    own = authority.issue_cert("box")
    values = {"server": "box:1", "timeout": "3", "tls_name": "box"}
    for name, blob in {
        "tls_ca": authority.cert_pem, "tls_cert": own.cert_chain_pems[0], "tls_key": own.private_key_pem,
    }.items():  # fmt: skip
        values[name] = str(tmp_path / name)
        blob.write_to_path(values[name])
    values["token_file"] = str(tmp_path / "token")
    (tmp_path / "token").write_text("open-sesame\n")
    assert set(values) == {field.name for field in dataclasses.fields(Connection)}

    by_environment = read(**{f"STROKE_{name.upper()}": value for name, value in values.items()})
    by_flags = read(*(f"--{name.replace('_', '-')}={value}" for name, value in values.items()))

    assert by_environment == by_flags == Connection(**{**values, "timeout": 3.0})  # type: ignore[arg-type]
    with by_flags.open_client() as client:
        assert client._metadata() == (("authorization", "Bearer open-sesame"),)
        (tmp_path / "token").write_text("changed")
        assert client._metadata() == (("authorization", "Bearer changed"),)


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--server", "box:x"], {}, "--server: the server's address"),
        ([], {"STROKE_SERVER": "box:99999"}, "STROKE_SERVER: the server's address"),
        ([], {"STROKE_TIMEOUT": "soon"}, "STROKE_TIMEOUT: 'soon' is not a positive number"),
        (["--timeout", "0"], {}, "--timeout: '0' is not a positive number"),
        (["--tls-cert", "c.pem"], {}, "certificate and its key belong together"),
        (["--tls-ca", "/nonexistent/ca.pem"], {}, "(--tls-ca) /nonexistent/ca.pem cannot be read: No such file"),
        (["--token-file", "/nonexistent/token"], {}, "the token file /nonexistent/token cannot be read"),
        (["--server", "box", "--token-file", "/dev/null"], {}, "plain text to box:50051"),
        (["--server", "a,b", "--tls-name", ""], {"STROKE_TLS_CA": "/dev/null"}, "is not in PEM form"),
    ],
)
def test_unusable_setting_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], environment: dict[str, str], words: str
) -> None:
    """One line that names the flag, the variable or the file; exit status 2; nothing was sent."""
    with pytest.raises(SystemExit) as ended:
        read(*arguments, **environment)

    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "two tokens s3cret", "s3cret\nmore", "s3crét"])
def test_token_file_holds_one_token(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    """Anything else is refused, and what it holds is not shown."""
    file = tmp_path / "token"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit):
        read("--token-file", str(file))

    said = capsys.readouterr().err
    assert str(file) in said
    assert "s3cr" not in said
