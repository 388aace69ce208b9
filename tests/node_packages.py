"""Programs for Node.js with packages of their own, pinned by a lock file, for tests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import ROOT

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def install_packages(folder: Path, missing: str) -> Run:
    """Returns what runs a command with the packages of a folder installed; skips the test where there is no Node.js.

    Args:
        folder: with a package-lock.json.
        missing: what is not done then.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip(f"Node.js is not here: {missing}")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    if not (folder / "node_modules").exists():
        place = str(folder.relative_to(ROOT))
        installed = run("npm", "ci", "--ignore-scripts", "--legacy-peer-deps", "--prefix", place)
        assert installed.returncode == 0, installed.stderr
    return run
