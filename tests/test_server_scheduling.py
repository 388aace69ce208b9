"""Who may interrupt whom in a running server."""

from __future__ import annotations

import os
import queue
from pathlib import Path

import pytest

from proto import stroke_pb2 as pb
from server.scheduling import set_policy
from tests.fakes import ServerProcess, encode, make_slice, wait_until


def count_giving_way(server: ServerProcess) -> int:
    """How many of the server's threads do not interrupt others."""
    found = 0
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        try:
            found += os.sched_getscheduler(int(task.name)) == os.SCHED_BATCH
        except ProcessLookupError:  # it ended meanwhile
            continue
    return found


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="the system has no such policies")
def test_only_the_threads_of_an_open_stream_give_way(tiny_server: ServerProcess) -> None:
    """The ones that read, answer and watch; afterwards none, so that single calls are as fast as ever."""
    outbox: queue.Queue[pb.PredictRequest | None] = queue.Queue()
    with tiny_server.stub() as stub:
        before = count_giving_way(tiny_server)
        answers = stub.PredictStream(iter(outbox.get, None), timeout=60)
        outbox.put(pb.PredictRequest(image=encode(make_slice())))
        next(answers)
        during = count_giving_way(tiny_server)
        outbox.put(None)
        assert list(answers) == []

        wait_until(lambda: count_giving_way(tiny_server) == 0)

    assert (before, during) == (0, 3)


def test_refusal_of_the_kernel_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may forbid it; the server serves all the same."""

    def refuse(*args: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)

    set_policy("SCHED_OTHER")
