"""What the asynchronous client waits for without holding up its loop: names and tokens."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from client import (
    AsyncStrokeClient,
    AuthenticationError,
    ServerUnavailableError,
)
from tests.client_fakes import FakeServer

IMAGE = b"stroke image"


async def run_beside(work: Awaitable[object]) -> tuple[object, int]:
    """Returns what ``work`` returns, and how often the loop came round meanwhile."""
    turns = 0
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    return task.result(), turns


async def collect(results: AsyncIterator[object]) -> list[object]:
    return [result async for result in results]


def test_slow_token_does_not_hold_up_the_loop(server: FakeServer) -> None:
    """A function that returns it is called in a thread, before single calls and streams alike."""
    callers: list[int] = []

    def fetch_token() -> str:
        callers.append(threading.get_ident())
        time.sleep(0.3)  # as a slow identity provider does
        return "open-sesame"

    async def main() -> None:
        async with AsyncStrokeClient(server.target, token=fetch_token) as client:
            _, turns = await run_beside(client.predict(IMAGE))
            assert turns > 5
            results, turns = await run_beside(collect(client.predict_many([IMAGE, IMAGE])))
            assert turns > 5
            assert [result.label for result in results] == ["stroke", "stroke"]

    asyncio.run(main())

    assert threading.get_ident() not in callers
    assert {metadata["authorization"] for metadata in server.servicer.metadata} == {"Bearer open-sesame"}


def test_token_that_fails_ends_a_stream(server: FakeServer) -> None:
    """With the error that a single call has."""

    def fetch_token() -> str:
        raise OSError("no provider")

    async def main() -> None:
        async with AsyncStrokeClient(server.target, token=fetch_token) as client:
            with pytest.raises(AuthenticationError) as caught:
                await collect(client.predict_many([IMAGE, IMAGE]))
            assert caught.value.reason == "TOKEN_UNREADABLE"

    asyncio.run(main())


def test_stream_left_while_its_token_is_fetched_leaves_nothing(server: FakeServer) -> None:
    """A cancelled task ends although the function goes on."""
    released = threading.Event()

    def fetch_token() -> str:
        released.wait(20)
        return "open-sesame"

    async def main() -> None:
        async with AsyncStrokeClient(server.target, token=fetch_token) as client:
            task = asyncio.ensure_future(collect(client.predict_many([IMAGE, IMAGE])))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            released.set()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())

    assert server.servicer.requests == []


def test_slow_names_do_not_hold_up_the_loop(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a list are looked up in a thread at the first call, once for calls that begin together."""
    looked_up: list[str] = []
    look_up = socket.getaddrinfo

    def look_up_slowly(host: str, *arguments: Any, **options: Any) -> Any:
        looked_up.append(host)
        time.sleep(0.3)
        return look_up("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_slowly)

    async def main() -> None:
        async with AsyncStrokeClient(f"box-a:{server.port},box-b:{server.port}") as client:
            assert looked_up == []
            _, turns = await run_beside(asyncio.gather(*(client.predict(IMAGE) for _ in range(5))))
            assert turns > 5
            results = await collect(client.predict_many([IMAGE, IMAGE]))
            assert [result.label for result in results] == ["stroke", "stroke"]

    asyncio.run(main())

    assert looked_up == ["box-a", "box-b"]


def test_list_of_unknown_names_is_an_error_of_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stream, too; and a client that was never used closes."""

    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    async def main() -> None:
        async with AsyncStrokeClient("a,b") as client:
            for call in (client.predict(IMAGE), client.check_health(), collect(client.predict_many([IMAGE]))):
                with pytest.raises(ServerUnavailableError, match="no host of a:50051,b:50051 is known"):
                    await call

    asyncio.run(main())
