"""Both clients behind one face, so that one specification holds for the blocking and the asynchronous one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, closing
from typing import Any

from client import AsyncStrokeClient, Prediction, PredictionFailure, StrokeClient

Result = Prediction | PredictionFailure


class ClientKind:
    """Makes a client for each call, with ``options``."""

    def __init__(self, target: str, **options: Any) -> None:
        self.target = target
        self.options: dict[str, Any] = {"timeout": 5.0, **options}

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Returns what a method of the client returns."""
        raise NotImplementedError

    def predict_many(
        self,
        images: Iterable[Any],
        *,
        into: Any = None,
        stop: Callable[[Result], object] | None = None,
        **kwargs: Any,
    ) -> list[Result]:
        """Returns the results, appended ``into`` a list one by one. ``stop`` sees each of them, and leaves the
        loop by returning something true."""
        raise NotImplementedError


class Blocking(ClientKind):
    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        with StrokeClient(self.target, **self.options) as client:
            return getattr(client, method)(*args, **kwargs)

    def predict_many(self, images, *, into=None, stop=None, **kwargs):
        results: Any = [] if into is None else into
        with (
            StrokeClient(self.target, **self.options) as client,
            closing(client.predict_many(images, **kwargs)) as stream,
        ):
            for result in stream:
                results.append(result)
                if stop is not None and stop(result):
                    break
        return results


class Asynchronous(ClientKind):
    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            async with AsyncStrokeClient(self.target, **self.options) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(run())

    def predict_many(self, images, *, into=None, stop=None, **kwargs):
        results: Any = [] if into is None else into

        async def run() -> None:
            async with AsyncStrokeClient(self.target, **self.options) as client:
                async with aclosing(client.predict_many(images, **kwargs)) as stream:
                    async for result in stream:
                        results.append(result)
                        if stop is not None and stop(result):
                            break
                assert await list_tasks() == []

        asyncio.run(run())
        return results


class FromAsyncIterable(Asynchronous):
    """The asynchronous client, with images that come asynchronously."""

    def predict_many(self, images, **kwargs):
        async def turn() -> AsyncIterator[Any]:
            for image in images:
                await asyncio.sleep(0)
                yield image

        return super().predict_many(turn(), **kwargs)


KINDS = {"blocking": Blocking, "asynchronous": Asynchronous}


async def list_tasks() -> list[str]:
    """Names the tasks of the running loop that do not end by themselves, but for the one that asks. Those in which
    grpc.aio takes the status of a call that is over need a moment."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, others = await asyncio.wait(others, timeout=1)
    return [task.get_coro().__qualname__ for task in others]  # type: ignore[union-attr]


def list_new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    """Lists what was started since; not the fake server's, nor the one that grpc.aio keeps for the whole process."""
    started = [thread for thread in threading.enumerate() if thread not in before]
    return [thread for thread in started if "fake-server" not in thread.name and "_poll_wrapper" not in thread.name]


def make_images(count: int) -> list[bytes]:
    return [b"%s %d" % (b"stroke" if index % 3 == 0 else b"other", index) for index in range(count)]


def expect_labels(count: int) -> list[str]:
    return ["stroke" if index % 3 == 0 else "normal" for index in range(count)]


def endless_images() -> Iterator[bytes]:
    index = 0
    while True:
        yield b"stroke %d" % index
        index += 1


def run(target: str, use: Callable[[AsyncStrokeClient], Awaitable[Any]]) -> Any:
    """Runs ``use`` with a client in a loop of its own, which it must leave without tasks."""

    async def main() -> Any:
        async with asyncio.timeout(60), AsyncStrokeClient(target, timeout=5) as client:
            result = await use(client)
        assert await list_tasks() == []
        return result

    return asyncio.run(main())
