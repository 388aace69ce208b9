"""Who may interrupt whom in a running server."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from proto import stroke_pb2 as pb
from server.processors import count_processors
from server.scheduling import set_policy
from tests.fakes import ServerProcess, encode, make_slice


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="the system has no such policies")
def test_only_workers_go_first(tiny_server: ServerProcess) -> None:
    """Every thread but the workers waits for its turn, those included that gRPC starts for a call."""
    with tiny_server.stub() as stub:
        list(stub.PredictStream(iter([pb.PredictRequest(image=encode(make_slice()))] * 8), timeout=20))
    threads = [int(task.name) for task in Path(f"/proc/{tiny_server.process.pid}/task").iterdir()]
    policies: Counter[int] = Counter()
    for thread in threads:
        try:
            policies[os.sched_getscheduler(thread)] += 1
        except ProcessLookupError:  # it ended meanwhile
            continue

    processors = count_processors()
    assert os.sched_getscheduler(tiny_server.process.pid) == os.SCHED_BATCH
    assert processors <= policies[os.SCHED_OTHER] < 2 * processors  # NumPy's library starts idle ones of its own
    assert policies[os.SCHED_BATCH] > policies[os.SCHED_OTHER]


def test_refusal_of_the_kernel_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may forbid it; the server serves all the same."""

    def refuse(*args: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)

    set_policy("SCHED_OTHER")
