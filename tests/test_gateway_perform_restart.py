"""Kill -9 at each step: a task goes on under the same Transaction UID, and its results are there once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import ROOT, wait_until
from tests.gateway_box import make_files
from tests.perform_box import ReadyClient, list_left, perform_once, run_performer, wait_for_state
from tests.perform_driver import STEPS
from tests.ups_server import TASK, Handler, Service, add_task, run_service


@pytest.fixture
def service():
    with run_service(make_files(3)) as running:
        yield running


@pytest.fixture(scope="module")
def driver():
    command = [sys.executable, "-m", "tests.perform_driver"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("step", STEPS)
def test_task_ends_once(service: Service, tmp_path: Path, driver: subprocess.Popen[str], step: str) -> None:
    """Wherever the power went."""
    assert driver.stdin is not None
    assert driver.stdout is not None
    task = add_task(service)
    print(json.dumps([str(tmp_path / "queue"), service.url, step]), file=driver.stdin, flush=True)
    assert int(driver.stdout.readline()) == -signal.SIGKILL
    claimed = task.transaction

    assert perform_once(tmp_path / "queue", service) == 0
    assert task.transaction == claimed or not claimed
    assert service.worklist.states == [(TASK, "IN PROGRESS"), (TASK, "COMPLETED")]
    assert len(set(service.stored)) == 1
    assert list_left(tmp_path / "queue") == []


def test_claim_whose_answer_is_lost_is_ours(service: Service, tmp_path: Path) -> None:
    """It opens to our Transaction UID."""
    task = add_task(service)
    lose_answer(service, "PUT")
    assert perform_once(tmp_path / "queue", service) == 1
    assert task.state == "IN PROGRESS"

    assert perform_once(tmp_path / "queue", service) == 0
    assert task.state == "COMPLETED"


def test_claim_whose_answer_is_lost_may_be_theirs(service: Service, tmp_path: Path) -> None:
    """Where another was first."""
    task = add_task(service)
    lose_answer(service, "PUT")
    perform_once(tmp_path / "queue", service)
    task.transaction = "2.25.1"

    assert perform_once(tmp_path / "queue", service) == 0
    assert task.state == "IN PROGRESS"
    assert service.stored == []
    assert list_left(tmp_path / "queue") == []


@pytest.mark.parametrize("state", ["CANCELED", "COMPLETED", "deleted", "SCHEDULED"])
def test_task_that_was_ended_by_others_is_forgotten(service: Service, tmp_path: Path, state: str) -> None:
    """Meanwhile; a manager of the worklist may do so when a performer seems to be gone."""
    task = add_task(service)
    client = ReadyClient(holds=True)
    with run_performer(tmp_path / "queue", service, client, poll_seconds=60):
        assert client.entered.wait(30)
        if state == "deleted":
            task.is_deleted = True
        else:
            task.state, task.transaction = state, ""
        client.go_on.set()
        wait_until(lambda: not any((tmp_path / "queue" / "performing").iterdir()))

    assert service.stored == []


def test_stop_leaves_the_task_for_the_next_start(service: Service, tmp_path: Path) -> None:
    """SIGTERM while images come: nothing is lost, and nobody else gets it meanwhile."""
    task = add_task(service)
    with run_performer(tmp_path / "queue", service) as performer:

        def stop(request: Handler) -> bool:
            if "/studies/" in request.path:
                performer.stop()
            return False

        service.hooks.append(stop)
        wait_for_state(service, TASK, "IN PROGRESS")
        performer._stop.wait(30)
    assert task.state == "IN PROGRESS"
    claimed = task.transaction

    service.hooks.clear()
    assert perform_once(tmp_path / "queue", service) == 0
    assert (task.state, task.transaction) == ("COMPLETED", claimed)


def lose_answer(service: Service, command: str) -> None:
    """Has the service do what the next request of a kind wants, and answer 503."""

    def lose(request: Handler) -> bool:
        if request.command != command:
            return False
        service.hooks.remove(lose)
        original = request.answer
        request.answer = lambda status, *_, **__: original(503)  # type: ignore[method-assign]
        return False

    service.hooks.append(lose)
