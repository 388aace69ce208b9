"""The converter's command line: one-line errors, and outputs that decide over nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from converter.cli import main
from tests.fakes import ROOT


@pytest.mark.parametrize(
    ("redirections", "code"), [(">/dev/full", 1), (">&-", 0), ("2>/dev/full", 0), ("2>&-", 0), (">&- 2>&-", 0)]
)
def test_report_that_nobody_got_has_failed(redirections: str, code: int) -> None:
    """Nothing else comes of that command; a closed output is one that wants nothing."""
    command = [sys.executable, "-m", "converter", "report", "models/stroke-cnn/1"]
    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *command]

    assert subprocess.run(shell, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode == code


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--threshold", "nan"], "--threshold must be a number, 0 to 1"),
        (["--threshold", "2"], "--threshold must be 0 to 1"),
        (["--opset", "100000"], "--opset must be 7 to 25"),
        (["--colour", "blue"], "--colour must be one of grey, rgb"),
        (["--images", ""], "--images must not be empty"),
        (["--target", "x86"], "are for --int8"),
    ],
)
def test_usage_error_is_one_line(flags: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the flag, and where all are explained."""
    with pytest.raises(SystemExit) as exit_:
        main(["model.keras", "-o", "models/x/1", *flags])

    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("converter: error: ")
    assert named in line
    assert line.endswith("(python -m converter --help shows all settings)")
