"""What is printed and refused about the lines that tests reach; shown on a made-up project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.coverage_table import LEAST
from tests.tracing import COVERING, ROOT

SETTINGS = """
[tool.pytest.ini_options]
testpaths = ["checks"]
pythonpath = ["."]
addopts = "-p tests.coverage_table"

[tool.coverage.run]
source = ["server", "client", "converter", "training"]
data_file = "build/coverage/lines"
parallel = true
"""
CODE = "def reached():\n    return 1\n\n\ndef missed():\n    a = 1\n    b = 2\n    return a + b\n"
TEST = """import os, signal, subprocess, sys
from server.code import reached

def test_it():
    assert reached()

def test_killed_process():
    environment = {**os.environ, "COVERAGE_PROCESS_START": "pyproject.toml"}
    code = "import client.code, os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -signal.SIGKILL
    open(os.path.join("build", "coverage", "lines.torn"), "wb").write(b"SQLite format 3")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The four packages, one file each; of the server's six lines three are reached, of the others none."""
    for package in LEAST:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "code.py").write_text(CODE)
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "checks").mkdir()
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    return tmp_path


def run_tests(project: Path, *arguments: str) -> tuple[int, str]:
    """Runs the project's one test file; returns the exit status and everything that was printed."""
    (project / "checks" / "test_it.py").write_text(TEST)
    outer = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID", COVERING)
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--cov", "--cov-report=", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_whole_run_with_too_few_lines_fails(project: Path, workers: tuple[str, ...]) -> None:
    """A line for each package, files that nothing loads included; a process that was killed does no harm."""
    status, output = run_tests(project, *workers)

    assert "2 passed" in output
    assert status == 1
    assert "server         2      6      3   50.0 %  (at least 95 %)" in output
    assert "training       2      6      6    0.0 %\n" in output
    assert "too few lines of server are reached" in output


def test_part_of_the_tests_may_reach_few(project: Path) -> None:
    """Somebody who runs one file sees the table and passes."""
    status, output = run_tests(project, "checks/test_it.py")

    assert "2 passed" in output
    assert status == 0
    assert "   50.0 %" in output
    assert "too few" not in output


def test_crash_costs_one_result_where_lines_are_counted(project: Path) -> None:
    """The process takes the lines that it had counted with it; the table is of the others."""
    (project / "checks" / "test_crash.py").write_text("import os\n\ndef test_crash(): os.abort()\n")

    status, output = run_tests(project, "-n", "2", "-p", "tests.processes")

    assert status == 1
    assert "1 failed, 2 passed" in output
    assert "crashed while running 'checks/test_crash.py::test_crash'" in output
    assert "server         2      6" in output
