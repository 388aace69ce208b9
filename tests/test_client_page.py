"""docs/client.md: its commands and examples are run as they stand there, its tables are those of the code."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from client import _errors
from client.cli.connection import Connection
from tests.fakes import ROOT, ServerProcess, run_server

PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SNAKE = re.compile(r"[A-Z]+(?:_[A-Z]+)+|UNAUTHENTICATED|INDETERMINATE")
NOT_REASONS = re.compile(
    r"GRPC_|STROKE_|NO_COLOR|O_[A-Z]+$|CERTIFICATE_|UNKNOWN_CA|WRONG_VERSION|DECRYPT_|ACCESS_DENIED|NOT_SERVING|NOT_ANALYSED"
    r"|SERVICE_UNK"
)
"""Names of the environment, of flags of the system, of OpenSSL's alerts, and of states of health and of answers."""

GRPC_CODES = {name for name, *_ in _errors._CODES.values()}


@pytest.fixture(scope="module")
def bundled() -> Iterator[ServerProcess]:
    """A real server with the bundled model, as the page's reader has it."""
    with run_server(ROOT / "models") as running:
        yield running


def run(command: str, server: ServerProcess, folder: Path) -> str:
    """Runs a command of the page at the root, asking ``server`` and writing to ``folder``."""
    command = command.replace("python ", f"{shlex.quote(sys.executable)} ", 1)
    command = command.replace("build/", f"{shlex.quote(str(folder))}/")
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        env={"STROKE_SERVER": server.address, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_commands_run_in_order(bundled: ServerProcess, tmp_path: Path) -> None:
    """Each exits with 0, and the files of results are there afterwards."""
    outputs = {command: run(command, bundled, tmp_path) for command in COMMANDS}

    assert "stroke-1.png: stroke 1.000  P(stroke) 1.000" in outputs["python -m client samples/stroke-1.png"]
    assert outputs["python -m client health --wait 30"].split()[:2] == [bundled.address, "SERVING"]
    samples = len(list((ROOT / "samples").iterdir()))
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == samples
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + samples


@pytest.mark.parametrize("example", EXAMPLES, ids=["blocking", "asynchronous"])
def test_examples_run(example: str, bundled: ServerProcess, tmp_path: Path) -> None:
    """The Python blocks, but for the address."""
    code = example.replace("127.0.0.1:50051", bundled.address)
    (tmp_path / "example.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}")

    printed = run(f"python {shlex.quote(str(tmp_path / 'example.py'))}", bundled, tmp_path)
    assert printed.startswith("stroke ")
    assert float(printed.split()[1]) > 0.99


def test_table_of_flags_is_that_of_the_code() -> None:
    """Flag, environment name, default and meaning come from one definition."""
    rows = ["| flag | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for field in fields(Connection):
        names = f"`--{field.name.replace('_', '-')}` | `STROKE_{field.name.upper()}`"
        rows.append(f"| {names} | {field.default or 'none'} | {field.metadata['help']} |")

    assert "\n".join(rows) in PAGE


def test_every_reason_that_the_client_makes_is_explained() -> None:
    """A program that meets a reason finds it in the page, and the page names none that does not exist."""
    made = set().union(*(find_reasons(path.read_text("utf-8")) for path in (ROOT / "client").rglob("*.py")))
    explained = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", PAGE.split("| reason |")[1].split("## Command line")[0]))

    assert explained == made


def find_reasons(source: str) -> set[str]:
    """What a module's errors are made with, and every other text that looks like a reason and is not known as none."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SNAKE.fullmatch(node.value):
            found.add(node.value)
    found -= GRPC_CODES - {"DEADLINE_EXCEEDED", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED"}
    found = {text for text in found if not NOT_REASONS.match(text)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _errors.__dict__:
            reasons = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "reason")]
            found |= {part.value for part in reasons if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return found


def test_reasons_are_found_wherever_they_are_made() -> None:
    """As an argument of an error whatever it looks like, and in a table."""
    source = """raise ServerError("m", "ODD")\nServerError("m", reason="ANOTHER")\nT = {1: "IN_A_TABLE", 2: "O_F"}"""

    assert find_reasons(source) == {"ODD", "ANOTHER", "IN_A_TABLE"}
