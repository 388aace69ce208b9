"""Kill -9 at each step: a study has its results, once, when the gateway runs again."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.listen.service import Gateway
from tests.fakes import ROOT, wait_until
from tests.gateway_box import Archive, FakeClient, make_files, make_written, open_archive, send, send_all
from tests.gateway_driver import STEPS, make_config

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@contextmanager
def run_to_death(queue: Path, archive: Archive, step: str, quiet: float = 0.5, fetch_from: str = "") -> Iterator[int]:
    """A gateway that ends itself at a step; its port."""
    words = [str(queue), archive.address, step, str(quiet), fetch_from]
    command = [sys.executable, "-m", "tests.gateway_driver", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r":(\d+); results", said)
        assert found, said
        yield int(found[1])
        assert process.wait(60) == -signal.SIGKILL


@contextmanager
def run_again(
    queue: Path, archive: Archive, capsys: pytest.CaptureFixture[str], **settings: Any
) -> Iterator[tuple[Gateway, int]]:
    """A gateway in this process; its port."""
    config = make_config(queue, archive.address, **settings)
    gateway = Gateway(config, FakeClient(), send_all, make_written)  # type: ignore[arg-type]
    capsys.readouterr()
    thread = threading.Thread(target=gateway.run)
    thread.start()
    said: list[str] = []
    try:
        wait_until(lambda: said.append(capsys.readouterr().out) or "results go" in "".join(said))  # type: ignore[func-returns-value]
        yield gateway, int(re.search(r":(\d+); results", "".join(said))[1])  # type: ignore[index]
    finally:
        gateway.stop()
        thread.join()


@pytest.mark.parametrize("step", STEPS)
def test_study_has_its_results_once(tmp_path: Path, step: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever the power went. A sender that had no answer sends again, as archives do."""
    queue, files = tmp_path / "queue", make_files(3)
    with open_archive() as archive:
        with run_to_death(queue, archive, step) as port:
            answers = send_until_death(port, files)
        is_all_there = answers == [0, 0, 0]
        with run_again(queue, archive, capsys, quiet=0.5 if is_all_there else 3600) as (gateway, port):
            if not is_all_there:
                assert send(port, files) == [0, 0, 0]
                gateway._arrivals._quiet = 0.0
            wait_until(lambda: archive.datasets and list_open(queue) == [])

    assert len(archive.datasets) == 1
    assert [path.name for path in queue.rglob("*") if path.suffix in (".dcm", ".part")] == []
    assert len(list((queue / "done").iterdir())) == 1
    assert list((queue / "failed").iterdir()) == []


def send_until_death(port: int, files: list[bytes]) -> list[int]:
    """What a sender hears."""
    try:
        return send(port, files)
    except (RuntimeError, ValueError):  # there is no association any more
        return []


def list_open(queue: Path) -> list[Path]:
    """What is not done yet."""
    return [path for state in ("receiving", "waiting", "sending") for path in (queue / state).iterdir()]
