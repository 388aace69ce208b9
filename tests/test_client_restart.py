"""Real servers that are stopped by SIGTERM and started again under both clients: no image fails, none comes twice."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.client_fakes import wait_for
from tests.restarts import Callers, restarted_server

pytestmark = pytest.mark.timed

WAYS = {"_call", "_stream", "_call_in_loop", "_stream_in_loop"}


@pytest.mark.parametrize("servers", [1, 2], ids=["single", "pair"])
def test_restarts_fail_nothing(tiny_models: Path, servers: int) -> None:
    """Single calls and streams, in threads and in an event loop, to one server or to two in turn."""
    with ExitStack() as stack:
        running = [stack.enter_context(restarted_server(tiny_models)) for _ in range(servers)]
        callers = Callers(",".join(server.address for server in running), threads=1)
        try:
            for server in running * (2 // servers):
                wait_for_more(callers)
                server.restart()
            wait_for_more(callers)
        finally:
            callers.stop()

    assert callers.failures == []


def wait_for_more(callers: Callers) -> None:
    """Waits until images were answered in each way, or one of them failed, which ends a stream."""
    before = callers.answered.copy()
    wait_for(lambda: callers.failures or all(callers.answered[way] > before[way] + 20 for way in WAYS), 30)
