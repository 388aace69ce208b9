"""AsyncStrokeClient: the same answers and errors as StrokeClient, and what only an event loop brings."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from client import (
    AsyncStrokeClient,
    ClientClosedError,
    DeadlineExceededError,
    HealthStatus,
    ImageTooLargeError,
    IntegrityError,
    InvalidImageError,
    ModelNotFoundError,
    ServerUnavailableError,
    StrokeClient,
)
from tests.client_fakes import FakeServer, RefusalError, make_response, wait_for
from tests.client_kinds import ClientKind, endless_images, run

IMAGE = b"stroke image"


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    """Who knows one client knows the other: names, arguments and defaults are equal."""

    def describe(kind: type) -> dict[str, list[tuple[str, object, object]]]:
        methods = {name: value for name, value in inspect.getmembers(kind, callable) if not name.startswith("_")}
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
            for name, method in {**methods, "__init__": kind.__init__}.items()
        }

    assert describe(AsyncStrokeClient) == describe(StrokeClient)


def test_calls_return_the_same(server: FakeServer, either: ClientKind, tmp_path: Path) -> None:
    """Prediction, models and health are those of the server, whichever client asks."""
    path = tmp_path / "scan.png"
    path.write_bytes(IMAGE)

    prediction = either.call("predict", path, model="resnet", version="7", request_id="r-1")

    assert (prediction.label, prediction.model, prediction.version) == ("stroke", "resnet", "7")
    assert (prediction.source, prediction.index, prediction.request_id) == (path, 0, "r-1")
    assert prediction.image_sha256 == hashlib.sha256(IMAGE).hexdigest()
    assert either.call("model_info").model_card == "# Model card\n"
    assert [model.name for model in either.call("list_models")] == ["stroke-cnn"]
    assert either.call("check_health") is HealthStatus.SERVING


@pytest.mark.parametrize(
    ("image", "error", "reason"),
    [
        (b"", InvalidImageError, "IMAGE_EMPTY"),
        (b"x" * 1001, ImageTooLargeError, "IMAGE_TOO_LARGE"),
        ("/no/such/file.png", InvalidImageError, "IMAGE_UNREADABLE"),
    ],
)
def test_unusable_image_is_refused_before_it_is_sent(
    server: FakeServer, either: ClientKind, image: object, error: type[Exception], reason: str
) -> None:
    """Both clients refuse on this side what cannot be judged."""
    either.options["max_image_bytes"] = 1000

    with pytest.raises(error) as caught:
        either.call("predict", image)

    assert caught.value.reason == reason
    assert server.servicer.requests == []


def test_errors_are_the_same(server: FakeServer, either: ClientKind) -> None:
    """The server's code, reason and sentence become the same error, without grpc in its traceback."""

    def judge(request):
        raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The image is damaged.")

    server.servicer.judge = judge

    with pytest.raises(InvalidImageError, match=r"^The image is damaged\.$") as caught:
        either.call("predict", IMAGE, request_id="r-2")
    assert (caught.value.reason, caught.value.code) == ("IMAGE_UNDECODABLE", "INVALID_ARGUMENT")
    assert caught.value.request_id == "r-2"
    assert caught.value.__context__ is None
    with pytest.raises(ModelNotFoundError, match="There is no model 'x'"):
        either.call("model_info", "x")


def test_unsound_answer_is_never_returned(server: FakeServer, either: ClientKind) -> None:
    """An answer about other bytes is an error."""

    def judge(request):
        response = make_response(request)
        response.image_sha256 = "00" * 32
        return response

    server.servicer.judge = judge

    with pytest.raises(IntegrityError, match="other bytes"):
        either.call("predict", IMAGE)


def test_deadline_covers_all_tries(server: FakeServer, either: ClientKind) -> None:
    """The timeout is the deadline on the wire, and repetitions come out of it."""
    either.call("predict", IMAGE, timeout=60)
    assert 55 < server.servicer.time_remaining[0] <= 60.1

    def judge(request):
        raise RefusalError(grpc.StatusCode.UNAVAILABLE)

    server.servicer.judge = judge
    with pytest.raises((ServerUnavailableError, DeadlineExceededError)):
        either.call("predict", IMAGE, timeout=1)
    tries = server.servicer.time_remaining[1:]
    assert len(tries) > 1
    assert tries == sorted(tries, reverse=True)
    assert tries[-1] < 0.9


def test_hanging_server_ends_in_deadline_exceeded(server: FakeServer, either: ClientKind) -> None:
    """A server that does not answer costs no more than the timeout."""
    server.servicer.judge = server.servicer.hang

    with pytest.raises(DeadlineExceededError, match="no answer from"):
        either.call("predict", IMAGE, timeout=0.2)


def test_concurrent_calls_each_get_their_own_answer(server: FakeServer) -> None:
    """Calls of many tasks share the client."""

    async def use(client: AsyncStrokeClient) -> list[str]:
        images = [IMAGE if index % 2 else b"other" for index in range(16)]
        return [prediction.label for prediction in await asyncio.gather(*map(client.predict, images))]

    assert run(server.target, use) == ["normal", "stroke"] * 8


def test_reading_does_not_hold_up_the_loop(server: FakeServer) -> None:
    """While a file is read, other tasks run: here one without which the reading would fail."""
    others_ran = threading.Event()

    class SlowFile:
        def __init__(self) -> None:
            self._pieces = [b"", IMAGE]

        def read(self, size: int) -> bytes:
            if not others_ran.wait(60):
                raise OSError("the loop stood still")
            others_ran.clear()
            asyncio.run_coroutine_threadsafe(tick(), loop)
            return self._pieces.pop()

    async def tick() -> None:
        others_ran.set()

    async def use(client: AsyncStrokeClient) -> list[str]:
        nonlocal loop
        loop = asyncio.get_running_loop()
        loop.call_soon(others_ran.set)
        single = await client.predict(SlowFile())  # type: ignore[arg-type]
        many = [result async for result in client.predict_many([SlowFile(), SlowFile()])]  # type: ignore[list-item]
        return [result.label for result in (single, *many)]

    loop: Any = None
    assert run(server.target, use) == ["stroke"] * 3


def test_cancelled_call_ends(server: FakeServer) -> None:
    """A task that is cancelled while it waits for the server leaves no task behind, and the client works on."""
    server.servicer.judge = server.servicer.hang

    async def use(client: AsyncStrokeClient) -> str:
        task = asyncio.create_task(client.predict(IMAGE))
        while not server.servicer.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.servicer.released.set()
        return (await client.predict(IMAGE)).label

    assert run(server.target, use) == "stroke"


def test_cancelled_run_leaves_no_task_and_no_call(server: FakeServer) -> None:
    """Cancelling a task in the middle of predict_many ends the stream on the server and every task here."""

    async def use(client: AsyncStrokeClient) -> None:
        async def consume() -> None:
            async for _ in client.predict_many(endless_images()):
                started.set()

        started = asyncio.Event()
        task = asyncio.create_task(consume())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(server.target, use)
    wait_for(lambda: len(server.servicer.ended_streams) == 1)


def test_waiting_images_are_cancelled_with_the_run(server: FakeServer) -> None:
    """An asynchronous iterable that waits when the run is left is ended, too."""
    ended: list[str] = []

    async def images() -> AsyncIterator[bytes]:
        try:
            yield IMAGE
            await asyncio.sleep(60)
        finally:
            ended.append("images")

    async def use(client: AsyncStrokeClient) -> None:
        stream = client.predict_many(images())
        await anext(stream)
        await stream.aclose()

    run(server.target, use)

    assert ended == ["images"]


def test_closed_client_says_so(server: FakeServer) -> None:
    """Every method of a closed client raises ClientClosedError, and closing twice is fine."""

    async def main() -> None:
        client = AsyncStrokeClient(server.target)
        await client.close()
        await client.close()
        for call in (client.predict(IMAGE), client.model_info(), client.list_models(), client.wait_until_ready()):
            with pytest.raises(ClientClosedError, match="is closed"):
                await call
        with pytest.raises(ClientClosedError):
            client.predict_many([IMAGE])

    asyncio.run(main())


def test_closing_ends_what_runs(server: FakeServer) -> None:
    """Calls and runs under way when the client is closed say so: nobody cancelled their tasks."""
    server.servicer.judge = server.servicer.hang

    async def use(client: AsyncStrokeClient) -> list[object]:
        async def collect() -> list[object]:
            return [result async for result in client.predict_many([IMAGE])]

        tasks = [asyncio.create_task(client.predict(IMAGE)), asyncio.create_task(collect())]
        while len(server.servicer.requests) < 2:
            await asyncio.sleep(0.01)
        await client.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = run(server.target, use)

    assert [type(outcome) for outcome in outcomes] == [ClientClosedError, ClientClosedError]


def test_given_channel_is_used_and_left_open(server: FakeServer) -> None:
    """A channel of grpc.aio that was passed in belongs to the caller; closed by them, it is no error of grpc."""

    async def main() -> None:
        async with grpc.aio.insecure_channel(server.target) as channel:
            async with AsyncStrokeClient(channel=channel) as client:
                assert (await client.predict(IMAGE)).label == "stroke"
            client = AsyncStrokeClient(channel=channel)
            assert (await client.predict(IMAGE)).label == "stroke"
        with pytest.raises(ClientClosedError):
            await client.predict(IMAGE)
        with pytest.raises(ClientClosedError):
            [result async for result in client.predict_many([IMAGE])]

    asyncio.run(main())


def test_client_outside_of_a_loop_is_refused() -> None:
    """Without a running loop it would belong to none: said when it is made, with what to do, not at the first call."""
    with pytest.raises(RuntimeError, match=r"no running event loop.*make it inside a coroutine"):
        AsyncStrokeClient()


def test_client_of_another_loop_is_refused(server: FakeServer) -> None:
    """At its first call there, with what to do, rather than by an error of grpc or by waiting for ever."""

    async def make() -> AsyncStrokeClient:
        return AsyncStrokeClient(server.target)

    client = asyncio.run(make())

    async def use() -> None:
        with pytest.raises(RuntimeError, match="another event loop: make one for each loop"):
            await client.predict(IMAGE)
        with pytest.raises(RuntimeError, match="another event loop"):
            client.predict_many([IMAGE])

    asyncio.run(use())
