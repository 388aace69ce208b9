"""What a crash costs, and what a test process may hold; shown on made-up test files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fakes import ROOT
from tests.scheduling import SECONDS, FileScheduling

CRASH = "import os\n\ndef test_before(): pass\n\ndef test_crash(): os.abort()\n\ndef test_after(): pass\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder for test files, and for two packages that have the names of the large ones."""
    for name in ("tensorflow", "openvino"):
        (tmp_path / f"{name}.py").touch()
    settings = "[pytest]\npythonpath = .\naddopts = -p tests.processes\nmarkers =\n tensorflow\n openvino\n"
    (tmp_path / "pytest.ini").write_text(settings)
    return tmp_path


def run_tests(project: Path, *flags: str, **files: str) -> tuple[int, str, str]:
    """Runs test files; returns the exit status, the last line, and everything that was printed."""
    for name, code in files.items():
        (project / f"{name}.py").write_text(code)
    outer = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *flags],
        cwd=project,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_crash_is_named_and_costs_one_result(project: Path) -> None:
    """The test before it, the one after it and those of other files report; the run fails."""
    status, last, output = run_tests(
        project,
        *("-n", "2"),
        test_a=CRASH,
        test_b="import time\n\ndef test_b(): time.sleep(1)\n",
        test_c=CRASH,
    )

    assert status == 1
    assert "2 failed, 5 passed" in last
    for name in ("test_a", "test_c"):
        assert output.count(f"FAILED {name}.py::test_crash") == 1
        assert f"crashed while running '{name}.py::test_crash'" in output
    assert "Fatal Python error" in output  # once or twice: what two crashes write at the same time is mixed


def test_crash_at_the_end_of_a_process_is_seen(project: Path) -> None:
    """All tests have passed, and still the run fails."""
    code = "import atexit, os\n\ndef test_it(): atexit.register(os.abort)\n"

    status, last, output = run_tests(project, "-n", "2", test_a=code, test_b="def test_b(): pass\n")

    assert status == 1
    assert "2 passed, 1 error" in last
    assert "the process was ended by SIGABRT after its tests" in output


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_two_libraries_in_one_process_fail_the_second_test(project: Path, workers: tuple[str, ...]) -> None:
    """Whatever its mark says, and whether there are workers or not."""
    status, last, output = run_tests(
        project,
        *workers,
        test_a="import pytest\n\n@pytest.mark.tensorflow\ndef test_a(): import tensorflow\n",
        test_b="import pytest\n\n@pytest.mark.tensorflow\ndef test_b(): import openvino\n",
        test_c="def test_c(): pass\n",
    )

    assert status == 1
    assert "3 passed, 1 error" in last
    assert "test_b.py::test_b: openvino and tensorflow are in one process" in output


@pytest.mark.parametrize("name", ["tensorflow", "openvino"])
def test_library_needs_its_mark(project: Path, name: str) -> None:
    """Without it a test would share a process with any other."""
    status, last, output = run_tests(project, test_a=f"def test_a(): import {name}\n")

    assert status == 1
    assert "1 passed, 1 error" in last
    assert f"test_a.py::test_a: {name} was loaded, which only a test marked {name} may do" in output


def test_library_is_not_loaded_by_reading_the_tests(project: Path) -> None:
    """Every process reads all test files."""
    status, _, output = run_tests(project, test_a="import tensorflow\n\ndef test_a(): pass\n")

    assert status != 0
    assert "test_a.py: tensorflow was loaded" in output


def test_openvino_has_processes_of_its_own(project: Path) -> None:
    """Fixtures included: nothing of it is left for other tests, which may load TensorFlow; a crash is that test's."""
    marked = (
        "import os, pytest\n\npytestmark = pytest.mark.openvino\n\n@pytest.fixture\n"
        "def library():\n    import openvino\n    return openvino\n\n"
        "def test_good(library): pass\n\ndef test_bad(library): assert not library\n\n"
        "def test_crash(library): os.abort()\n\ndef test_skipped(library): pytest.skip()\n"
    )
    other = "import pytest\n\n@pytest.mark.tensorflow\ndef test_b(): import tensorflow\n"

    status, last, output = run_tests(project, test_a=marked, test_b=other)

    assert status == 1
    assert "3 failed, 2 passed" in last
    assert "the process was ended by SIGABRT" in output
    assert "assert not <module 'openvino'" in output


def test_longest_files_are_there() -> None:
    """A file that is renamed keeps its place."""
    assert all((ROOT / file).is_file() for file in SECONDS)


HEAVY_MARK = "pytestmark = pytest.mark.tensorflow"


class Node:
    """A process as a scheduler sees it; it runs one test whenever it is told to."""

    shutting_down = False
    gateway = SimpleNamespace(id="a process")

    def __init__(self) -> None:
        self.waiting: list[int] = []

    def send_runtest_some(self, tests: list[int]) -> None:
        self.waiting += tests

    def shutdown(self) -> None:
        self.shutting_down = True


def test_heavy_files_share_a_process_while_there_are_others(project: Path) -> None:
    """The long file is the first; the second process takes a heavy one when nothing else is left."""
    heavy = ("h1.py", "h2.py", "h3.py", "h4.py")
    light = ("l1.py", "l2.py", "l3.py")
    for name in (*heavy, *light):
        (project / name).write_text(HEAVY_MARK if name in heavy else "")
    config = SimpleNamespace(
        rootpath=project, getvalue=lambda name: ["popen"] * 2, option=SimpleNamespace(loadscopereorder=True)
    )
    scheduler = FileScheduling(config)  # type: ignore[arg-type]
    nodes = [Node(), Node()]
    tests = [f"{name}::test" for name in (*light, *heavy)]
    for node in nodes:
        scheduler.add_node(node)  # type: ignore[arg-type]
        scheduler.add_node_collection(node, tests)  # type: ignore[arg-type]

    scheduler.schedule()
    ran: list[list[str]] = [[], []]
    while not scheduler.tests_finished:
        for node, names in zip(nodes, ran, strict=True):
            test = node.waiting.pop(0)
            names.append(tests[test].partition(":")[0])
            scheduler.mark_test_complete(node, test)  # type: ignore[arg-type]

    assert ran[0] == list(heavy)[: len(ran[0])]
    assert ran[1][:3] == list(light)
