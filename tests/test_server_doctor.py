"""``python -m server doctor``: what a box lacks is found before a server is relied on."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from server.config import ServerConfig
from server.lifecycle import doctor
from server.lifecycle.doctor import Finding, examine, main
from tests.access import write_tokens
from tests.certificates import DAY, NOW, chain, issue_server, key


@pytest.fixture
def config(tiny_models: Path, tmp_path: Path) -> ServerConfig:
    """A server that would run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return ServerConfig(models=tiny_models, port=free.getsockname()[1], cache=str(tmp_path))


def find(config: ServerConfig, subject: str) -> Finding:
    """The only finding of a subject."""
    (finding,) = [finding for finding in examine(config) if finding.subject == subject]
    return finding


def test_box_that_is_well(config: ServerConfig) -> None:
    """Each subject once; the model is read and asked as at a start, and memory has the figure for a unit of systemd."""
    findings = {finding.subject: finding for finding in examine(config)}

    assert [*findings] == ["processor", "cores", "clock", "disk", "permissions", "dicom", "model", "memory", "port"]
    assert {finding.state for finding in findings.values()} <= {"ok", "warning"}
    assert "golden answers are right" in findings["model"].text
    assert "MemoryMax=" in findings["memory"].text


def test_altered_model_is_a_problem(config: ServerConfig, tmp_path: Path) -> None:
    """With the reason that the server would give."""
    finding = find(replace(config, models=tmp_path / "none"), "model")

    assert finding.state == "problem"
    assert finding.text.endswith("[MODEL_NOT_FOUND]")


def test_port_in_use_is_a_problem(config: ServerConfig) -> None:
    """It may be that of a server which runs already."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", config.port))
        taken.listen()

        assert find(config, "port").state == "problem"


def test_models_that_others_may_change_are_named(config: ServerConfig) -> None:
    """With the command that mends it."""
    (folder,) = config.models.glob("*/*")
    mode = folder.stat().st_mode
    folder.chmod(0o777)
    try:
        finding = find(config, "permissions")
    finally:
        folder.chmod(mode)

    assert finding.state == "warning"
    assert str(folder) in finding.text
    assert "chmod -R go-w" in finding.text


@pytest.mark.parametrize(
    ("name", "value", "subject", "state"),
    [
        ("read_available_bytes", lambda: 100_000_000, "memory", "warning"),
        ("find_target", lambda: "x86", "processor", "warning"),
        ("read_cpu_quota", lambda: 0.5, "cores", "warning"),
        ("is_clock_kept", lambda: False, "clock", "warning"),
        ("is_clock_kept", lambda: None, "clock", "ok"),
        ("FIRST_TIME", 4e9, "clock", "problem"),
        ("LEAST_FREE_DISK", 1e18, "disk", "warning"),
    ],
)
def test_what_a_box_lacks(
    name: str, value: object, subject: str, state: str, config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory, VNNI, processors, time and disk."""
    monkeypatch.setattr(doctor, name, value)

    assert find(config, subject).state == state


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("pydicom", "DICOM files are refused: to read them, make install-dicom"),
        ("gdcm", "DICOM files are read; JPEG and JPEG-LS are refused: make install-dicom-codecs"),
        ("nothing", "DICOM files are read, compressed ones, too"),
    ],
)
def test_what_is_read_of_dicom(lacking: str, said: str, config: ServerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is installed, with the command that adds what is not."""
    monkeypatch.setattr(doctor, "find_spec", lambda package: None if package == lacking else object())

    assert find(config, "dicom") == Finding("dicom", "ok", said)


def test_examination_that_fails_is_a_finding(config: ServerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on."""

    def fail(path: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.shutil, "disk_usage", fail)

    assert find(config, "disk") == Finding("disk", "problem", "cannot be examined: Permission denied")


def test_exit_code_and_forms(config: ServerConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """1 where there is a problem; the same for machines."""
    flags = ["--models", str(config.models), "--port", str(config.port), "--cache", str(config.cache)]

    assert main(flags) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(("ok", "warning"))
    assert main([*flags, "--model", "nothing", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"]
    assert {finding["subject"] for finding in document["findings"] if finding["state"] == "problem"} == {"model"}


def test_socket_needs_a_folder(config: ServerConfig, tmp_path: Path) -> None:
    """That the server may write to."""
    assert find(replace(config, host=f"unix:{tmp_path}/server.sock"), "port").state == "ok"
    assert find(replace(config, host="unix:/nowhere/server.sock"), "port").state == "problem"
    assert os.listdir(tmp_path) == []


def test_tokens_are_looked_at(config: ServerConfig, tmp_path: Path) -> None:
    """Whether the file can be used, and which of them end soon."""
    guarded = replace(config, tokens=tmp_path / "tokens")
    assert find(guarded, "access").state == "problem"

    write_tokens(tmp_path / "tokens", ward="", archive="expires=2020-01-01")
    first, second = (finding for finding in examine(guarded) if finding.subject == "access")
    assert (first.state, first.text) == ("warning", "the token of archive is good until 2020-01-01 (UTC)")
    assert (second.state, second.text) == ("ok", "the files that say who may call can be used; 2 tokens")


def test_certificates_are_looked_at(config: ServerConfig, tmp_path: Path) -> None:
    """Whether they can be used, and until when."""
    own = replace(config, tls_cert=tmp_path / "cert", tls_key=tmp_path / "key")

    def find_with(days: int) -> Finding:
        pair = issue_server(not_before=NOW - 9 * DAY, not_after=NOW + days * DAY)
        own.tls_cert.write_bytes(chain(pair))  # type: ignore[union-attr]
        own.tls_key.write_bytes(key(pair))  # type: ignore[union-attr]
        own.tls_key.chmod(0o600)  # type: ignore[union-attr]
        return find(own, "certificate")

    assert [find_with(days).state for days in (100, 20, -1)] == ["ok", "warning", "problem"]
    assert "the certificate of the server (localhost) ended on" in find_with(-1).text
    (tmp_path / "key").chmod(0o644)
    assert "chmod 600" in find(own, "certificate").text


def test_what_http_needs_is_looked_for(config: ServerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address, and what it is made of."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert find(replace(config, http=address), "http").state == "ok"
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)

    found = [one for one in examine(replace(config, http=address)) if one.subject == "http"]
    assert [one.state for one in found] == ["problem", "ok"]
    assert "make install-web" in found[0].text
