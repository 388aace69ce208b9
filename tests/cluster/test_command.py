"""``python -m cluster``: what it says without a cluster."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proto import __version__
from tests.tracing import ROOT


def run_cluster(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command."""
    return subprocess.run([sys.executable, "-m", "cluster", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--version"], ["score", "--version"]])
def test_every_command_says_its_version(arguments: list[str]) -> None:
    """Ray is not loaded for that."""
    result = run_cluster(*arguments)

    assert (result.returncode, result.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["score", "in"], "the following arguments are required: --out"),
        (["score", "in", "--out", "out", "--partition-files", "0"], "--partition-files must be 1 to 100000, got 0"),
        (["scores"], "invalid choice: 'scores'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], line: str) -> None:
    """As of every program here."""
    result = run_cluster(*arguments)

    assert result.returncode == 2
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1
