"""What a server said at the end of a call, where a send crosses it: grpc.aio then says something of its own making."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from client.stream import ending
from client.stream.ending import CROSSED, Ending

SAID = grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata(), "no room")
CROSSING = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), CROSSED)


class FakeCall:
    """A call of ``grpc.aio``, as far as its status goes."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Any], None]] = []
        self._status = SAID

    def add_done_callback(self, listener: Callable[[Any], None]) -> None:
        self._listeners.append(listener)

    def end(self, status: grpc.aio.AioRpcError) -> None:
        self._status = status
        for listener in self._listeners:
            listener(self)

    async def code(self) -> grpc.StatusCode:
        return self._status.code()

    async def details(self) -> str | None:
        return self._status.details()

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return self._status.initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return self._status.trailing_metadata()


def find(*statuses: grpc.aio.AioRpcError, later: tuple[grpc.aio.AioRpcError, ...] = ()) -> grpc.aio.AioRpcError:
    """What is taken for the end of a call with these statuses, the last of which the call raises; some come later."""

    async def run() -> grpc.aio.AioRpcError:
        call = FakeCall()
        listener = Ending(call)
        for status in statuses:
            call.end(status)
        for status in later:
            asyncio.get_running_loop().call_later(0.01, call.end, status)
        return await listener.find(statuses[-1])

    return asyncio.run(run())


def test_what_the_server_said_is_kept() -> None:
    """Whether the crossing takes its place or stands there first."""
    for found in (find(SAID, CROSSING), find(CROSSING, later=(SAID,))):
        assert (found.code(), found.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")


def test_other_ends_are_as_they_are() -> None:
    """Nothing is waited for."""
    assert find(SAID) is SAID


def test_crossing_alone_is_the_end_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has said nothing is not waited for."""
    monkeypatch.setattr(ending, "PATIENCE_SECONDS", 0.01)

    assert find(CROSSING) is CROSSING
