"""The commands of docs/models.md, in order, on a server of their own."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

from tests.administration import operate
from tests.fakes import ROOT, SPEC, run_server, write_model

PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
COMMANDS = re.findall(r"^\$ python -m server model (.+)$", PAGE, re.MULTILINE)


def test_commands_do_what_the_page_says(tmp_path: Path) -> None:
    """Each of them is done."""
    spec = replace(SPEC, name="stroke-cnn")
    write_model(tmp_path / "models", spec)
    with run_server(tmp_path / "models", "--model", "stroke-cnn", "--admin", str(tmp_path / "admin")):
        write_model(tmp_path / "models", replace(spec, version="2"))
        done = [(command, *operate(tmp_path / "admin", *shlex.split(command))) for command in COMMANDS]

    assert len(COMMANDS) > 8
    assert {command.split()[0] for command in COMMANDS} == {
        "list",
        "activate",
        "status",
        "promote",
        "rollback",
        "unload",
    }
    assert [one for one in done if one[1] != 0] == []


def test_page_explains_every_reason_for_which_a_change_is_refused() -> None:
    """Besides what is wrong with a model; and no other."""
    modules = [path.read_text("utf-8") for path in (ROOT / "server").rglob("*.py")]
    sent = {reason for text in modules for reason in re.findall(r'ChangeRefusedError\(\s*"([A-Z_]+)"', text)}
    explained = {reason for row in re.findall(r"^\| (`[A-Z].*?) \|", PAGE, re.MULTILINE) for reason in row.split("`")}

    assert sent <= explained
    for reason in re.findall(r"`([A-Z]+_[A-Z_]+)`", PAGE):
        assert any(f'"{reason}"' in text for text in modules), reason
