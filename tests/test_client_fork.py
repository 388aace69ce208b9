"""Clients in forked processes, as web servers of many workers make them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.client_fakes import FakeServer
from tests.command_lines import POSITIVE
from tests.fakes import ROOT

WORKERS = """
import os, sys
from client import StrokeClient

image, target, when = bytes.fromhex(sys.argv[1]), sys.argv[2], sys.argv[3]
shared = None if when == "after the fork" else StrokeClient(target)
if when == "before it, and used":
    shared.predict(image)
    list(shared.predict_many([image] * 3))
workers = []
for _ in range(2):
    if (worker := os.fork()) == 0:
        client = shared or StrokeClient(target)
        labels = [client.predict(image).label, *(result.label for result in client.predict_many([image] * 3))]
        os._exit(0 if labels == ["stroke"] * 4 else 1)
    workers.append(worker)
if shared:
    assert shared.predict(image).label == "stroke"
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.parametrize("when", ["after the fork", "before it", "before it, and used"])
def test_forked_workers_have_answers(server: FakeServer, when: str) -> None:
    """The client was made by each worker (gunicorn), or by the process that forks them (gunicorn --preload); that one
    goes on, too."""
    command = [sys.executable, "-W", "error", "-c", WORKERS, POSITIVE.hex(), server.target, when]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stderr
    assert len(server.servicer.requests) == 8 + {"after the fork": 0, "before it": 1, "before it, and used": 5}[when]
