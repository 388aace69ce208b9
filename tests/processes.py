"""How the tests share processes: a pytest plugin that tests/conftest.py loads.

``make test`` runs the files side by side (pytest-xdist). TensorFlow and OpenVINO are never together in one of these
processes: what one of them leaves behind has crashed the other, tests later. Tests marked ``tensorflow`` share a
process, as it takes long to load; each test marked ``openvino`` has one of its own. A process that crashes costs the
test that it ran, and no other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable
from typing import Any

import pytest
from xdist.workermanage import NodeManager, WorkerController

from tests.scheduling import FileScheduling
from tests.tracing import traced

LIBRARIES = frozenset({"tensorflow", "openvino"})
ALONE = "--alone"
HELD = pytest.StashKey[set[str]]()
WORKERS = pytest.StashKey[list[WorkerController]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(ALONE, action="store_true", help="this process is the own one of a test marked openvino")


def pytest_configure(config: pytest.Config) -> None:
    # xdist kills a process that does not end within ten seconds. With TensorFlow it takes three where nothing else
    # runs, and was killed where much did.
    NodeManager.EXIT_TIMEOUT = 120
    # Shells have what they run in the background ignore Ctrl-C; what tests of Ctrl-C start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[HELD] = set()
    config.stash[WORKERS] = []


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three processes for two processors: most tests of client and server wait more than they compute."""
    return 3 * len(os.sched_getaffinity(0)) // 2


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    return FileScheduling(config, log)


# What a process may hold.


def find_fault(config: pytest.Config, allowed: Iterable[str]) -> str:
    """What is wrong with the libraries that were loaded since this was last asked; nothing: an empty string."""
    now = {name for name in LIBRARIES if sys.modules.get(name) is not None}
    new = now - config.stash[HELD]
    config.stash[HELD] |= now
    if new and len(now) > 1:
        return f"{' and '.join(sorted(now))} are in one process"
    if new - set(allowed):
        (name,) = new
        return f"{name} was loaded, which only a test marked {name} may do, and not before it runs"
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, Any]:
    """Refuses a file that loads a library when it is imported: every process imports every file."""
    report = yield
    if fault := find_fault(collector.config, ()):
        report.outcome, report.longrepr = "failed", f"{collector.nodeid}: {fault}"
    return report


@pytest.fixture(autouse=True)
def library_check(request: pytest.FixtureRequest) -> Generator[None]:
    """Fails the test that loads what its process may not hold."""
    yield
    allowed = {mark.name for mark in request.node.iter_markers()}
    if not request.config.getoption(ALONE):
        allowed.discard("openvino")
    if fault := find_fault(request.config, allowed):
        pytest.fail(f"{request.node.nodeid}: {fault}", pytrace=False)


# Tests marked openvino: each in a process of its own.


def is_elsewhere(item: pytest.Item) -> bool:
    return item.get_closest_marker("openvino") is not None and not item.config.getoption(ALONE)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Makes no fixtures for a test that runs elsewhere: they may load what it loads."""
    if is_elsewhere(item):
        item.fixturenames = ["library_check"]  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test marked ``openvino`` by another pytest; it passed if that one says so and then ended well itself."""
    if not is_elsewhere(pyfuncitem):
        return None
    config = pyfuncitem.config
    plugins = () if (config.rootpath / "tests" / "conftest.py").exists() else ("-p", __name__)
    command = [sys.executable, "-m", "pytest", *plugins, ALONE, "-p", "no:cacheprovider", pyfuncitem.nodeid]
    environment = {**os.environ, **traced()}
    done = subprocess.run(command, cwd=config.rootpath, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode != 0 or "= 1 passed" not in done.stdout:
        pytest.fail(f"{describe_status(done.returncode)}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return True


# How the processes end.


def describe_status(status: int | None) -> str:
    if status is not None and status < 0:
        return f"the process was ended by {signal.Signals(-status).name}"
    return f"the process ended with status {status}"


def pytest_testnodeready(node: WorkerController) -> None:
    node.config.stash[WORKERS].append(node)


@pytest.hookimpl(tryfirst=True)
def pytest_handlecrashitem(report: pytest.TestReport) -> None:
    """A crash during a test is told by that test's report, and not once more at the end."""
    worker: WorkerController = report.node  # type: ignore[attr-defined]
    worker.config.stash[WORKERS].remove(worker)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run where a process crashed at its end, when all its tests had been reported: xdist does not look."""
    for worker in session.config.stash[WORKERS]:
        status = worker.gateway._io.popen.poll()
        if status != 0:
            place = f"process {worker.gateway.id}"
            text = f"{describe_status(status)} after its tests"
            report = pytest.TestReport(place, (place, None, place), {}, "failed", text, "teardown")
            session.config.hook.pytest_runtest_logreport(report=report)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
