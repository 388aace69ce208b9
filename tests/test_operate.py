"""The commands of docs/operate.md, in order, on files of their own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from tests.fakes import ROOT, run_module, run_server

PAGE = (ROOT / "docs" / "operate.md").read_text("utf-8")
COMMANDS = re.findall(r"^\$ python -m (.+)$", PAGE, re.MULTILINE)
AS_ROOT = re.findall(r"^# (.+)$", "\n".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)), re.MULTILINE)


def put_in(folder: Path, command: str) -> str:
    """A command with its files in ``folder``."""
    return re.sub(r"(?<=--out )certs|\bcerts/|\btokens\.txt", lambda found: f"{folder}/{found[0]}", command)


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the page."""
    return run_module(*shlex.split(put_in(folder, command)), env={**os.environ, **environment})


def test_commands_work_in_their_order(tmp_path: Path) -> None:
    """A box is examined, gets certificates and a token, and serves who has both."""
    doctor, health, certs, token, server = COMMANDS

    examined = run(doctor, tmp_path, STROKE_PORT="0")
    assert examined.returncode == 0, examined.stdout
    made = run(certs, tmp_path)
    assert made.returncode == 0, made.stderr
    added = run(token, tmp_path)
    assert added.returncode == 0, added.stderr
    (tmp_path / "token").write_text(added.stdout.strip())
    flags = shlex.split(put_in(tmp_path, server))[1:]
    with run_server(ROOT / "models", *flags) as started:
        port = started.address.rpartition(":")[2]
        tls = {"tls-ca": "ca.pem", "tls-cert": "pacs.pem", "tls-key": "pacs.key"}
        given = [word for name, file in tls.items() for word in (f"--{name}", str(tmp_path / "certs" / file))]
        given += ["--server", f"localhost:{port}", "--tls-name", "stroke.hospital.example"]

        asked = run_module(*shlex.split(health), *given)
        judged = run_module("client", "samples/stroke-1.png", *given, "--token-file", str(tmp_path / "token"))
        refused = run_module("client", "samples/stroke-1.png", *given)

    assert asked.returncode == 0, asked.stderr
    assert judged.returncode == 0, judged.stderr
    assert "wants a token" in refused.stderr


def test_scripts_that_need_root_are_there() -> None:
    """They are run by ``tests/test_deploy.py``, below a folder."""
    scripts = [command.split()[1] for command in AS_ROOT if command.startswith("sh ")]

    assert scripts == ["deploy/systemd/install.sh"]
    assert all((ROOT / script).is_file() for script in scripts)


def test_failures_name_what_exists() -> None:
    """Reasons, settings and metrics of the page are those of the server."""
    from server.config import ServerConfig
    from server.core import metric_names
    from server.flags import list_settings

    flags = {one.flag for one in list_settings(ServerConfig)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) - {
        "--extra",
        "--root",
        "--venv",
        "--purge",
        "--out",
        "--client",
        "--digest",
    }
    named -= {"--requests", "--file", "--server", "--json"}
    assert named <= flags | {"--host"}
    known = "\n".join(path.read_text("utf-8") for path in (ROOT / "server").rglob("*.py"))
    for reason in re.findall(r"\b[A-Z]+_[A-Z]+\b", PAGE):
        assert reason in known or reason.startswith(("STROKE_", "NOT_")), reason
    metrics = Path(str(metric_names.__file__)).read_text("utf-8")
    for metric in re.findall(r"\bstroke_[a-z_]+\b", PAGE):
        assert metric.removeprefix("stroke_").removesuffix("_total") in metrics or metric in metrics, metric
