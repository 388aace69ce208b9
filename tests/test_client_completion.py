"""python -m client completion: what it prints works in real shells, and knows every option of every parser."""

from __future__ import annotations

import io
import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

from client.cli.completion import list_parsers
from client.cli.main import SUBCOMMANDS, main
from tests.client_fakes import wait_for
from tests.command_lines import ROOT, run_client

SHELLS = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}
CLEAR_LINE = b"\x15"  # Ctrl-U
BELL = b"\a"  # rung when there was more than one way to complete


def need(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not here: completion in it was not tried")


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    """What the command prints, by shell."""
    return {shell: make_script(shell) for shell in SHELLS}


@pytest.fixture
def folder(scripts: dict[str, str], tmp_path: Path) -> Path:
    """Where a shell is to complete: the scripts, an image, names with spaces."""
    for shell, script in scripts.items():
        (tmp_path / f"{shell}.script").write_text(script)
    (tmp_path / "a scan.png").touch()
    (tmp_path / "hearing.png").touch()
    (tmp_path / "my scans").mkdir()
    return tmp_path


def make_script(shell: str) -> str:
    done = run_client("completion", shell)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


@contextmanager
def open_shell(shell: str, folder: Path) -> Iterator[tuple[int, bytearray]]:
    """Runs an interactive shell that has read the script; gives its keyboard and its screen."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "HOME": str(folder), "ZDOTDIR": str(folder)}
    screen = bytearray()

    def read_all() -> None:
        try:
            while chunk := os.read(master, 4096):
                screen.extend(chunk)
        except OSError:  # how Linux reports the end of a pseudo-terminal
            pass

    with subprocess.Popen(
        SHELLS[shell], stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True
    ) as process:
        os.close(slave)
        reader = threading.Thread(target=read_all)
        reader.start()
        try:
            os.write(master, f". ./{shell}.script; echo rea''dy\n".encode())
            wait_for(lambda: b"ready" in screen)  # printed: what was typed has quotes in it
            yield master, screen
        finally:
            process.kill()
            reader.join()
            os.close(master)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_in_a_real_shell(shell: str, folder: Path) -> None:
    """The tab key completes options, commands and their options, folders, and files whose names hold spaces."""
    need(shell)
    with open_shell(shell, folder) as (keyboard, screen):
        for typed, expected in {
            "stroke --recu": "stroke --recursive ",
            "stroke mod": "stroke models ",
            "stroke health --time": "stroke health --timeout ",
            "stroke completion z": "stroke completion zsh ",
            "stroke a": "stroke a\\ scan.png ",
            "stroke x.png a": "stroke x.png a\\ scan.png ",
            "stroke x.png hear": "stroke x.png hearing.png ",
            "stroke bench x.png a": "stroke bench x.png a\\ scan.png ",
            "stroke bench --arrivals f": "stroke bench --arrivals fixed ",
            "stroke --output hea": "stroke --output hearing.png ",
            "stroke --watch m": "stroke --watch my\\ scans/",
        }.items():
            screen.clear()
            os.write(keyboard, typed.encode() + b"\t")
            wait_for(lambda expected=expected: expected.encode() in screen.replace(BELL, b""))
            os.write(keyboard, CLEAR_LINE)


def complete_in_bash(folder: Path, *words: str) -> list[str]:
    """Calls the function as bash does; the last of ``words`` is what is to be completed."""
    code = '. ./bash.script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_stroke; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", code, "bash", "stroke", *words], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("command", ["", *SUBCOMMANDS])
def test_every_option_is_offered(command: str, folder: Path) -> None:
    """Long options of the command's own parser, all of them and no others."""
    need("bash")
    options = [option for action in list_parsers()[command]._actions for option in action.option_strings]

    offered = complete_in_bash(folder, *([command] if command else []), "--")

    assert sorted(offered) == sorted(option for option in options if option.startswith("--"))


def test_commands_are_offered_beside_files(folder: Path) -> None:
    """Only as the first word, where they mean something."""
    need("bash")
    assert sorted(complete_in_bash(folder, "hea")) == ["health", "hearing.png"]
    assert complete_in_bash(folder, "x.png", "hea") == ["hearing.png"]


def test_values_that_nobody_can_guess_are_left_alone(folder: Path) -> None:
    """After --timeout neither options nor files are offered."""
    need("bash")
    assert [word for word in complete_in_bash(folder, "--timeout", "") if word] == []


def test_stroke_runs_from_any_folder(folder: Path) -> None:
    """The command that the script defines is the client, and relative names are those of the folder one is in."""
    need("bash")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ["bash", "--norc", "-c", '. ./bash.script; stroke --server 127.0.0.1:1 "no such.png"'],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr == "no such.png: error: the image cannot be read: No such file or directory\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_installed_command_completes_itself(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called as ``stroke``, it defines no function of that name, and names nothing of a checkout."""
    monkeypatch.setattr(sys, "argv", ["/home/me/venv/bin/stroke"])
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main(["completion", shell]) == 0

    script = printed.getvalue()
    assert "stroke() {" not in script.replace("_stroke() {", "")
    assert str(ROOT) not in script
    assert f"Made by `stroke completion {shell}`" in script


def test_without_shtab_is_one_line(tmp_path: Path) -> None:
    """Exit 1, and what to install."""
    (tmp_path / "shtab.py").write_text("raise ModuleNotFoundError('shtab', name='shtab')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    done = run_client("completion", "bash", env=environment)

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: completion needs the package shtab: pip install 'strokeserve-client[cli]'")
    assert done.stderr.count(b"\n") == 1


def test_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2; those that are known are named."""
    with pytest.raises(SystemExit) as caught:
        main(["completion", "fish"])

    assert caught.value.code == 2
    assert "'bash', 'zsh'" in capsys.readouterr().err
