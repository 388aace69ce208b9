"""A stream by itself: when it reads, when answers go out, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from proto import stroke_pb2 as pb
from server.admission.inbox import Held
from server.admission.places import StreamPlaces
from server.api.messages import Answer, has_response
from server.api.rpc.stream import Stream, StreamForm
from server.errors import BudgetExceededError, OverloadedError, RequestError, UnavailableError

TIMEOUT = 20
WINDOW = 4


class FakeCall:
    """A call whose messages are texts of digits, one image each; the caller takes answers while ``takes`` is set."""

    def __init__(self, *messages: str) -> None:
        self.inbox: asyncio.Queue[str | None] = asyncio.Queue()
        for message in messages:
            self.inbox.put_nowait(message)
        self.sent: list[str] = []
        self.released = 0
        self.taken = 0
        self.takes = asyncio.Event()
        self.takes.set()
        self.is_wanted = True
        self.is_let_go = False
        self.context = self

    async def receive(self) -> Held | None:
        message = await self.inbox.get()
        if message is None:
            return None
        self.taken += 1

        def count_release(size: int) -> None:
            self.released += 1

        return Held(message.encode(), count_release)

    async def unfold(self, message: Held, most_bytes: int) -> bytes:
        data, message.data = message.data, b""
        return data

    def let_go(self) -> None:
        self.is_let_go = True

    async def write(self, message: bytes) -> None:
        await self.takes.wait()
        self.sent.append(message.decode())


def make_stream(
    call: FakeCall,
    judge: Callable[[str], Awaitable[str]] | None = None,
    *,
    idle_seconds: float = TIMEOUT,
    window: int = WINDOW,
    window_bytes: int = 1000,
    images: int = 1,
) -> Stream:
    """A stream that answers each digit with itself, as a request of so many images."""

    def split(data: bytes) -> list[Any]:
        if not data.isdigit():
            raise RequestError("BATCH_SIZE_INVALID", "no images")
        return list(data.decode())

    def start(request: Any) -> asyncio.Future[Answer]:
        async def answer() -> Answer:
            text = request if judge is None else await judge(request)
            return Answer(response=pb.PredictResponse(id=text))

        return asyncio.ensure_future(answer())

    return Stream(
        call,  # type: ignore[arg-type]
        StreamForm(
            split,
            lambda answers: "".join(answer.response.id for answer in answers).encode(),
            has_response,
            lambda request: images,
        ),
        start,
        window=window,
        window_bytes=window_bytes,
        idle_seconds=idle_seconds,
        most_bytes=1000,
    )


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(steps, TIMEOUT))


async def poll(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_answers_of_a_message_go_together() -> None:
    """As long as none of them takes long; and each message is let go."""

    async def steps() -> None:
        call = FakeCall("1234", "5", "67")
        call.inbox.put_nowait(None)
        await make_stream(call).run()

        assert call.sent == ["1234", "5", "67"]
        assert call.released == 3

    run(steps())


def test_slow_image_does_not_hold_up_those_before_it() -> None:
    """What is done goes out after a moment; what comes after the slow one keeps its place."""

    async def steps() -> None:
        call, slow = FakeCall("1234"), asyncio.Event()

        async def judge(text: str) -> str:
            if text == "3":
                await slow.wait()
            return text

        serving = asyncio.create_task(make_stream(call, judge).run())
        await poll(lambda: call.sent == ["12"])
        slow.set()
        await poll(lambda: call.sent == ["12", "34"])
        call.inbox.put_nowait(None)
        await serving

    run(steps())


def test_slow_first_image_is_waited_for() -> None:
    """Its answer comes first, however long it takes, and takes the others along."""

    async def steps() -> None:
        call = FakeCall("123")

        async def judge(text: str) -> str:
            if text == "1":
                await asyncio.sleep(0.2)
            return text

        call.inbox.put_nowait(None)
        await make_stream(call, judge).run()

        assert call.sent == ["123"]

    run(steps())


@pytest.mark.parametrize(("messages", "images"), [(["12", "34", "56", "78"], 1), (["1", "2", "3"], 2)])
def test_no_more_is_taken_while_many_images_are_unanswered(messages: list[str], images: int) -> None:
    """Counted in images, not in messages or requests: the rest waits in the network."""

    async def steps() -> None:
        call, go_on = FakeCall(*messages), asyncio.Event()

        async def judge(text: str) -> str:
            await go_on.wait()
            return text

        call.inbox.put_nowait(None)
        serving = asyncio.create_task(make_stream(call, judge, window=4, images=images).run())
        await poll(lambda: call.taken == 2)
        await asyncio.sleep(0.1)
        assert call.taken == 2
        go_on.set()
        await serving

        assert call.sent == messages

    run(steps())


def test_no_more_is_taken_while_many_bytes_are_unanswered() -> None:
    """However few images they are; one message is always taken."""

    async def steps() -> None:
        call, go_on = FakeCall("1234", "56", "7"), asyncio.Event()

        async def judge(text: str) -> str:
            await go_on.wait()
            return text

        call.inbox.put_nowait(None)
        serving = asyncio.create_task(make_stream(call, judge, window=100, window_bytes=4).run())
        await poll(lambda: call.taken == 1)
        await asyncio.sleep(0.1)
        assert call.taken == 1
        go_on.set()
        await serving

        assert call.sent == ["1234", "56", "7"]

    run(steps())


def test_images_are_let_go_before_their_answer_is_taken() -> None:
    """A caller who takes his time does not keep the images of his last message, which may have 30 MiB."""

    async def steps() -> None:
        call = FakeCall("1")
        call.takes.clear()
        serving = asyncio.create_task(make_stream(call).run())
        await poll(lambda: call.released == 1)
        assert call.sent == []
        call.takes.set()
        call.inbox.put_nowait(None)
        await serving

    run(steps())


@pytest.mark.parametrize("fault", [RequestError("BATCH_SIZE_INVALID", "no images"), RuntimeError("a bug")])
def test_error_comes_after_the_answers_before_it(fault: Exception) -> None:
    """What ends the stream does not take answers with it, and no fault ends it as if all was well."""

    async def steps() -> None:
        call = FakeCall("12", "x" if isinstance(fault, RequestError) else "3", "4")
        stream = make_stream(call)
        if isinstance(fault, RuntimeError):
            start = stream._judge

            def judge(request: Any) -> asyncio.Future[Answer]:
                if request == "3":
                    raise fault
                return start(request)

            stream._judge = judge
        with pytest.raises(type(fault)):
            await stream.run()

        assert call.sent == ["12"]
        assert call.released == 2

    run(steps())


def test_stream_without_messages_ends() -> None:
    """With its reason."""

    async def steps() -> None:
        with pytest.raises(BudgetExceededError) as end:
            await make_stream(FakeCall(), idle_seconds=0.05).run()
        assert end.value.reason == "STREAM_IDLE"

    run(steps())


def test_stream_whose_answers_are_not_taken_is_let_go() -> None:
    """As cancelled: a status would have to wait behind the answers."""

    async def steps() -> None:
        call = FakeCall("1")
        call.takes.clear()
        with pytest.raises(asyncio.CancelledError):
            await make_stream(call, idle_seconds=0.05).run()
        assert call.is_let_go

    run(steps())


def test_ended_stream_answers_what_it_has_taken() -> None:
    """A server that stops finishes it, and takes no more."""

    async def steps() -> None:
        call, go_on = FakeCall("12"), asyncio.Event()

        async def judge(text: str) -> str:
            await go_on.wait()
            return text

        places = StreamPlaces(1)
        stream = make_stream(call, judge)
        serving = asyncio.create_task(places.run(stream))
        await poll(lambda: call.taken == 1)
        places.end_all(UnavailableError("SERVER_STOPPING", "elsewhere"))
        call.inbox.put_nowait("3")
        go_on.set()
        with pytest.raises(UnavailableError):
            await serving
        with pytest.raises(UnavailableError):
            await places.run(make_stream(FakeCall("4")))

        assert call.sent == ["12"]

    run(steps())


def test_stream_without_judged_images_yields_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is used does not, and one that sends rubbish does: its images are answered, but not judged."""

    async def steps() -> None:
        places = StreamPlaces(2)
        busy, idle, late = FakeCall("1"), FakeCall(), FakeCall("3")
        busy_stream, idle_stream = make_stream(busy), make_stream(idle)
        tasks = [asyncio.create_task(places.run(stream)) for stream in (busy_stream, idle_stream)]
        await poll(lambda: busy.sent)
        with pytest.raises(OverloadedError) as refusal:
            await places.run(make_stream(late))
        assert refusal.value.reason == "TOO_MANY_STREAMS"
        assert refusal.value.retry_after

        idle_stream.last_judged -= 60
        late.inbox.put_nowait(None)
        await places.run(make_stream(late))
        with pytest.raises(BudgetExceededError):
            await tasks[1]

        assert late.sent == ["3"]
        busy.inbox.put_nowait(None)
        await tasks[0]

    run(steps())


def test_refused_images_do_not_count_as_judged() -> None:
    """They keep a stream open, but not its place when others need it."""

    async def steps() -> None:
        call = FakeCall("1")
        stream = make_stream(call)
        stream._judge = lambda request: refuse()
        before = stream.last_judged
        call.inbox.put_nowait(None)
        await asyncio.sleep(0.01)
        await stream.run()

        assert stream.last_judged == before

    def refuse() -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        future.set_result(Answer(error=pb.PredictError(reason="IMAGE_UNDECODABLE")))
        return future

    run(steps())


def test_nothing_keeps_a_stream_that_has_ended() -> None:
    """Neither the places nor an error that it ended with."""

    async def steps() -> None:
        call = FakeCall("1", "x")
        places = StreamPlaces(1)
        stream = make_stream(call)
        reference = weakref.ref(stream)
        with pytest.raises(RequestError):
            await places.run(stream)
        del stream
        gc.collect()
        assert reference() is None

    started = time.monotonic()
    run(steps())
    assert time.monotonic() - started < TIMEOUT
