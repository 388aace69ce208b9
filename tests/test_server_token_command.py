"""python -m server token: tokens are shown once, and the file is changed at once or not at all."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.security import token_file
from server.security.token_command import main
from server.security.token_file import load_tokens
from server.security.tokens import Limits, digest_token
from tests.fakes import run_module

Output = pytest.CaptureFixture[str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file of tokens is to be."""
    return tmp_path / "tokens"


def run(path: Path, *arguments: str) -> int:
    return main([*arguments, "--file", str(path)])


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_token_is_shown_once_and_kept_as_a_digest(path: Path, capsys: Output) -> None:
    """On standard output alone, so that it can go into a file of its user's; the new file is its maker's alone."""
    before = os.umask(0)
    try:
        assert run(path, "add", "ward-3") == 0
    finally:
        os.umask(before)

    out, err = capsys.readouterr()
    token = out.strip()
    assert err == ""
    assert len(token) == 43  # 256 bits, 6 in each character
    assert list(load_tokens(path)) == [digest_token(token)]
    assert token not in path.read_text()
    assert mode_of(path) == 0o600
    assert run(path, "list") == 0
    assert token not in capsys.readouterr().out


def test_line_has_what_was_asked_for(path: Path, capsys: Output) -> None:
    """Roles, limits and the last day; the list shows them, and which tokens are over."""
    options = ["--roles", "predict,admin", "--requests", "20", "--images", "4", "--bytes", "1000"]
    assert run(path, "add", "ward-3", *options, "--expires", "2020-02-29") == 0
    assert run(path, "add", "archive") == 0
    capsys.readouterr()

    entry, other = load_tokens(path).values()
    assert (entry.name, entry.roles, entry.limits) == ("ward-3", {"predict", "admin"}, Limits(20, 4, 1000))
    assert run(path, "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"ward-3 {entry.digest[:12]}… roles=predict,admin requests=20 images=4 bytes=1000 expires=2020-02-29 EXPIRED",
        f"archive {other.digest[:12]}… roles=predict",
    ]


def test_name_may_have_two_tokens_until_the_old_one_is_revoked(path: Path, capsys: Output) -> None:
    """So a client changes its token without a gap."""
    for _ in range(2):
        assert run(path, "add", "ward-3") == 0
    assert run(path, "add", "other") == 0
    old, new, other = load_tokens(path)

    assert run(path, "revoke", "ward-3", "--digest", old[:12]) == 0
    assert list(load_tokens(path)) == [new, other]
    assert run(path, "revoke", "ward-3") == 0
    assert list(load_tokens(path)) == [other]
    assert run(path, "revoke", "other") == 0
    assert not load_tokens(path)  # a comment is left: a file that lets nobody in, and is none by mistake

    capsys.readouterr()
    assert run(path, "revoke", "other") == 1
    assert capsys.readouterr().err == f"server token: error: {path} has no token of other like that\n"


def test_comments_mode_and_link_stay(path: Path, tmp_path: Path) -> None:
    """Whoever has arranged the file finds it as it was."""
    real = tmp_path / "real"
    real.write_text("# mine\n")
    real.chmod(0o640)
    path.symlink_to(real)

    assert run(path, "add", "ward-3") == 0

    assert path.is_symlink()
    assert real.read_text().startswith("# mine\nward-3 ")
    assert mode_of(real) == 0o640
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["real", "tokens"]


def test_changes_at_the_same_time_are_all_made(path: Path) -> None:
    """Each waits for the one before."""
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda number: run(path, "add", f"ward-{number}"), range(16))) == {0}

    assert {entry.name for entry in load_tokens(path).values()} == {f"ward-{number}" for number in range(16)}


def test_change_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """A full disk is found before the old file is given up; nothing is left beside it, and no token is shown."""
    assert run(path, "add", "ward-3") == 0
    before = path.read_bytes()
    capsys.readouterr()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_file.os, "fsync", fail)
    assert run(path, "add", "other") == 1

    out, err = capsys.readouterr()
    assert (out, err) == ("", f"server token: error: {path}: No space left on device\n")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("text", ["ward-3\n", ""])
def test_file_with_a_mistake_is_left_alone(text: str, path: Path, capsys: Output) -> None:
    """The server would not take it."""
    path.write_text(text)

    assert run(path, "add", "other") == 1

    assert capsys.readouterr().err.startswith(f"server token: error: {path}: ")
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "add, list or revoke?"),
        (["make"], "add, list or revoke?"),
        (["add", "a b", "--file", "x"], "NAME must be 1 to 64 letters"),
        (["add", "a", "--file", "x", "--roles", "root"], "roles are predict, read, admin"),
        (["add", "a", "--file", "x", "--expires", "soon"], "expires= is a day"),
        (["add", "a", "--file", "x", "--images", "-1"], "--images must be 0 to 100000"),
        (["revoke", "a", "--file", "x", "--digest", "xyz"], "--digest must be hexadecimal digits"),
        (["list"], "--file"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """And exit code 2; no file is made."""
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]

    error = capsys.readouterr().err
    assert code == 2
    assert fault in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_it_is_a_command_of_the_server(path: Path) -> None:
    """With a help of its own."""
    result = run_module("server", "token", "--help")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: python -m server token add NAME --file FILE")
