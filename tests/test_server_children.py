"""A program that measures leaves no process behind, however it is ended."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server.process.children import EXIT_INTERRUPTED, EXIT_TERMINATED
from tests.fakes import ROOT, wait_until
from tests.test_imports import is_within, list_modules

PROGRAM = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from server.process.children import end_with_parent, run, run_main, start

def sleep(_):
    time.sleep(600)

def main():
    try:
        if sys.argv[1] == "start":
            start([sys.executable, "-c", "import time; time.sleep(600)"])
            time.sleep(600)
        elif sys.argv[1] == "run":
            run([sys.executable, "-c", "import time; time.sleep(600)"])
        else:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
                pool.submit(sleep, 0).result()
    finally:
        Path(sys.argv[2]).touch()

if __name__ == "__main__":
    run_main(main)
"""

SECONDS = 60.0
"""Far more than it takes."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program as a file, which processes of its pool import."""
    path = tmp_path / "measure.py"
    path.write_text(PROGRAM, "utf-8")
    return path


def start_program(program: Path, how: str) -> subprocess.Popen[str]:
    """Starts the program; its last word is the file that it writes at its end."""
    command = [sys.executable, str(program), how, str(program.parent / "ended")]
    return subprocess.Popen(command, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)


def list_sleepers(program: subprocess.Popen[str], how: str) -> list[psutil.Process]:
    """What the program has started that sleeps; a pool's process once it has read the program."""
    word = "spawn_main" if how == "pool" else "time.sleep"
    return [child for child in psutil.Process(program.pid).children(recursive=True) if word in str(child.cmdline())]


def has_ended(process: psutil.Process) -> bool:
    """Whether it has, be it that nobody has asked yet how."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def started(request: pytest.FixtureRequest, program: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """The program and its child, both ended whatever happens."""
    running = start_program(program, request.param)
    child = None
    try:
        wait_until(lambda: list_sleepers(running, request.param), SECONDS)
        (child,) = list_sleepers(running, request.param)
        yield running, child
    finally:
        running.kill()
        running.communicate()
        if child is not None and not has_ended(child):
            child.kill()


@pytest.mark.parametrize("started", ["start", "run"], indirect=True)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, EXIT_TERMINATED), (signal.SIGINT, EXIT_INTERRUPTED)], ids=["TERM", "INT"]
)
def test_a_signal_ends_a_program_its_children_and_what_it_has_begun(
    started: tuple[subprocess.Popen[str], psutil.Process], number: int, code: int, tmp_path: Path
) -> None:
    """It cleans up behind itself, and says one word."""
    running, child = started

    running.send_signal(number)
    _, said = running.communicate(timeout=SECONDS)

    assert (running.returncode, said) == (code, "stopped\n")
    assert (tmp_path / "ended").exists()
    wait_until(lambda: has_ended(child), SECONDS)


@pytest.mark.parametrize("started", ["start", "run", "pool"], indirect=True)
def test_children_end_with_a_program_that_is_killed(started: tuple[subprocess.Popen[str], psutil.Process]) -> None:
    """Those of a pool, too, which otherwise wait for work for ever."""
    running, child = started

    running.kill()

    wait_until(lambda: has_ended(child), SECONDS)


PROGRAMS = ("bench", "cluster.bench")
CHILDREN = (
    "bench.faults.flood",
    "bench.onebox.servers",
    "bench.serving.client_load",
    "bench.serving.load",
    "bench.serving.noop_server",
    "bench.serving.peak",
    "bench.training.ablation_variants",
    "bench.conversion.networks",
    "bench.conversion.obvious",
)
"""What is started by others, and starts nothing."""


def list_calls(module: str) -> set[str]:
    """The functions that a module calls, as it writes them."""
    tree = ast.parse(list_modules()[module].read_text("utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def list_measuring() -> list[str]:
    """The modules of the programs that measure; those of other servers run in environments of their own."""
    found = [name for name in list_modules() if any(is_within(name, package) for package in PROGRAMS)]
    return [name for name in found if not (name.startswith("bench.peers.") and name.count(".") > 2)]


def test_nothing_that_measures_starts_processes_otherwise() -> None:
    """One way, so that the next bench leaves nothing behind either."""
    ways = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")} | {"os.system"}

    assert [name for name in list_measuring() if list_calls(name) & ways] == []


def test_every_program_that_measures_ends_as_one() -> None:
    """But for those that are children themselves."""
    programs = [
        name for name in list_measuring() if '__name__ == "__main__"' in list_modules()[name].read_text("utf-8")
    ]

    assert set(CHILDREN) < set(programs)
    unguarded = [name for name in programs if not {"run_main", "children.run_main"} & list_calls(name)]
    assert unguarded == sorted(CHILDREN, key=programs.index)
