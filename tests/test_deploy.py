"""How the server is run for real: what deploy/ lays out, states and runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import ServerConfig
from server.flags import list_settings
from tests.fakes import ROOT, ServerProcess, run_module
from tests.scraping import find_free_port

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "strokeserve.service"
VARIABLES = {one.variable for one in list_settings(ServerConfig)}
BASE_MEGABYTES = 60
"""Of the image that the container is made from: gcr.io/distroless/python3-debian12, unpacked."""


def run_script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(DEPLOY / "systemd" / name), *map(str, arguments)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_unit_is_closed() -> None:
    """At most 2.0 of 10 by systemd's own count; and it finds no mistake in the file but that nothing is installed."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    report = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    (exposure,) = re.findall(r"Overall exposure level for strokeserve\.service: ([\d.]+)", report)

    assert float(exposure) <= 2.0

    command = ["systemd-analyze", "verify", "--man=no", str(UNIT)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr
    mistakes = [line for line in found.splitlines() if "strokeserve" in line and "is not executable" not in line]
    assert mistakes == []


def test_settings_that_files_name_exist() -> None:
    """Whatever is set by systemd, container, compose or Kubernetes is a setting of the server."""
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    named = {name for path in files for name in re.findall(r"\bSTROKE_[A-Z_]+\b", path.read_text("utf-8"))}

    assert len(named) > 5
    assert named <= VARIABLES


def test_release_is_laid_out_upgraded_and_removed(tmp_path: Path) -> None:
    """Settings and models of before stay; what was in use stays there to go back to; a purge leaves nothing."""
    assert run_script("install.sh", "--root", tmp_path, "--venv", ROOT / ".venv-serve").returncode == 0
    current, settings = tmp_path / "opt/strokeserve/current", tmp_path / "etc/strokeserve/server.env"
    first = current.resolve()
    settings.write_text("STROKE_WORKERS=1\n")

    again = run_script("install.sh", "--root", tmp_path, "--venv", ROOT / ".venv-serve")

    assert again.returncode == 0, again.stderr
    assert settings.read_text() == "STROKE_WORKERS=1\n"
    assert first.is_dir()
    assert current.resolve() != first
    unit = (tmp_path / "etc/systemd/system/strokeserve.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    (folder,) = re.findall(r"^WorkingDirectory=(.*)$", unit, re.MULTILINE)
    models = tmp_path / "srv/strokeserve/models"
    with serve(f"{tmp_path}{command}", Path(f"{tmp_path}{folder}"), {"STROKE_MODELS": str(models)}) as server:
        health = run_module("client", "health", "--server", server.address)
        assert health.returncode == 0, health.stderr

    assert run_script("uninstall.sh", "--root", tmp_path).returncode == 0
    assert settings.exists()
    assert not current.exists()
    assert run_script("uninstall.sh", "--root", tmp_path, "--purge").returncode == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_script_says_what_is_wrong_with_its_flags() -> None:
    """In a line, before it touches anything."""
    wrong = run_script("install.sh", "--rot", "/tmp/x")

    assert wrong.returncode == 2
    assert wrong.stderr.splitlines() == ["install.sh: error: --rot is not known (--help shows what is)"]
    wrong = run_script("install.sh", "--extra", "wev")
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines() == ["install.sh: error: --extra: wev is none of web, openvino, signing"]
    assert "--extra web" in run_script("install.sh", "--help").stdout
    assert "--root" in run_script("install.sh", "--help").stdout
    assert "--purge" in run_script("uninstall.sh", "--help").stdout


def serve(command: str, folder: Path, environment: dict[str, str]) -> Any:
    """Starts a server by a command line and waits until it serves."""
    return Started(
        subprocess.Popen(
            [*shlex.split(command), "--port", "0", "--host", "127.0.0.1", "--cache", "off"],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    )


class Started:
    """A server process that is ended at the end of a block."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __enter__(self) -> ServerProcess:
        assert self._process.stdout is not None
        banner = self._process.stdout.readline().strip()
        assert banner.startswith("serving"), banner
        return ServerProcess(self._process, banner, [])

    def __exit__(self, *error: object) -> None:
        with self._process:  # which closes its pipes
            self._process.terminate()
            assert self._process.wait(30) == 0


def read_instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile's lines: what, and with what."""
    for line in (DEPLOY / "container" / "Dockerfile").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            what, _, rest = line.partition(" ")
            yield what, rest


def test_container_can_be_built_and_run_here(tmp_path: Path) -> None:
    """Its commands one by one in an empty folder, with nothing else installed; the result fits 300 MB and answers."""
    app, build = tmp_path / "app", tmp_path / "build"
    build.mkdir()
    arguments: dict[str, str] = {}
    environment: dict[str, str] = {}
    checked: list[str] = []
    for what, rest in read_instructions():
        inside = rest.replace("/app", str(app))
        if what == "COPY" and not rest.startswith("--from"):
            source, target = inside.split()
            shutil.copytree(ROOT / source, build / target, ignore=shutil.ignore_patterns("__pycache__"))
        elif what == "ARG" and "=" in rest:
            arguments |= [rest.split("=", 1)]
        elif what == "RUN":
            command = inside.replace("python3", sys.executable)
            subprocess.run(["sh", "-c", command], cwd=build, env={**os.environ, **arguments}, check=True, timeout=300)
        elif what == "HEALTHCHECK":
            checked = json.loads(rest[rest.index("[") :])
        elif what == "ENV":
            environment |= dict(part.split("=", 1) for part in inside.split())
    size = sum(path.stat().st_size for path in app.rglob("*") if path.is_file()) / 1e6
    assert size + BASE_MEGABYTES <= 300

    probes = str(find_free_port())
    lone = {"PATH": os.environ["PATH"], **environment, "STROKE_PORT": "0", "STROKE_PROBE_PORT": probes}
    process = subprocess.Popen(
        # -S: without this environment's own packages.
        [sys.executable, "-S", "-m", "server"],
        cwd=app,
        env=lone,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with Started(process):
        words = [word.replace(environment["STROKE_PROBE_PORT"], probes) for word in checked]
        command = [sys.executable, "-S", *words[1:]]
        with_server_settings = {
            **lone,
            "STROKE_TLS_CERT": "/nowhere/server.pem",
            "STROKE_TLS_KEY": "/nowhere/server.key",
        }
        health = subprocess.run(
            command, cwd=app, env=with_server_settings, capture_output=True, timeout=60, check=False
        )
        assert health.returncode == 0, health.stdout


def test_compose_fits_the_checkout() -> None:
    """It builds from the Dockerfile, and Prometheus finds its files."""
    compose = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text("utf-8"))
    server = compose["services"]["strokeserve"]
    assert (DEPLOY / "container" / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert (DEPLOY / "container" / "../prometheus/prometheus.yml").is_file()
