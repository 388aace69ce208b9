"""Every request ends with one status within its time and a little more, whatever keeps its image from being judged."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.admission.boundary import Boundary
from server.admission.call import Call, Method
from server.admission.inbox import Inbox
from server.admission.judge import ImageToJudge, Judge
from server.admission.status import Status
from server.core.detector import Detection, Detector
from server.core.outcomes import Journal, Outcome
from server.core.plan import Plan
from server.models.engines.engine import DEFAULT_OPTIONS
from server.models.registry import ModelRegistry
from server.models.runtime import OnnxModel
from tests.fakes import encode, make_slice

pytestmark = pytest.mark.timed

IMAGE = encode(make_slice(200))
CAP = 0.3
"""What the server allows where a caller has no deadline."""

LATE = 0.25
"""How much later than its time a request may end."""


class FakeCall(Call):
    """A call whose only message is an image, or does not come."""

    def __init__(
        self, inbox: Inbox, seconds: float = float("inf"), *, is_silent: bool = False, peer: str = "a"
    ) -> None:
        super().__init__(peer, Method("Predict", images=1), inbox)
        self._seconds, self._is_silent = seconds, is_silent

    names = ()
    token = None

    @property
    def seconds_left(self) -> float:
        return self._seconds

    def find_trace(self) -> str:
        return ""

    async def read(self, note_size: Callable[[int], None]) -> bytes | None:
        if self._is_silent:
            await asyncio.Event().wait()
        return IMAGE


class Server:
    """The parts between a transport and the core, with one worker that can be kept busy.

    Attributes:
        outcomes: what the journal was told.
        judged: images that the model has seen.
    """

    def __init__(self, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outcomes: list[Outcome] = []
        self.judged = 0
        self.go_on = threading.Event()
        self.is_busy = threading.Event()
        journal = Journal([self])
        self.detector = Detector(registry, Plan("balanced", DEFAULT_OPTIONS), queue=8)
        self.judge = Judge(self.detector, journal, max_wait_seconds=CAP, batches=4)
        self.inbox = Inbox(1 << 20, lambda: 0)
        self._boundary = Boundary(16, journal)
        run = OnnxModel.score

        def held_run(model: OnnxModel, pixels: Any, *, busy: bool) -> Any:
            self.judged += 1
            self.is_busy.set()
            assert self.go_on.wait(60)
            return run(model, pixels, busy=busy)

        monkeypatch.setattr(OnnxModel, "score", held_run)

    def note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def make_call(self, seconds: float = float("inf"), **how: Any) -> FakeCall:
        return FakeCall(self.inbox, seconds, **how)

    async def predict(self, call: FakeCall) -> Detection | Status:
        """Serves a call of one image."""
        return await self._boundary.run(
            call, lambda call: self.judge.answer(call, lambda data: ImageToJudge(data), lambda found, _: found)
        )

    async def keep_busy(self) -> asyncio.Task[Detection | Status]:
        """Gives the worker something to do, until it may go on."""
        task = asyncio.create_task(self.predict(self.make_call(peer="first")))
        while not self.is_busy.is_set():
            await asyncio.sleep(0.001)
        return task

    def count(self, reason: str) -> int:
        """Images that ended for a reason."""
        return sum(outcome.is_image and outcome.reason == reason for outcome in self.outcomes)


@pytest.fixture
def server(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    registry = ModelRegistry()
    registry.load(tiny_models, "")
    server = Server(registry, monkeypatch)
    yield server
    server.go_on.set()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What happens takes its time, and not much more."""
    started = time.monotonic()
    yield
    assert seconds - 0.02 <= time.monotonic() - started < seconds + LATE


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(steps, 20))


def reason_of(outcome: object) -> str:
    assert isinstance(outcome, Status)
    assert outcome.code == "DEADLINE_EXCEEDED"
    return outcome.reason


@pytest.mark.parametrize(("seconds", "ends"), [(float("inf"), CAP), (0.15, 0.15)])
def test_image_that_waits_ends_with_its_time(server: Server, seconds: float, ends: float) -> None:
    """With its deadline, or the server's where it has none; it is neither decoded nor judged, and counted."""

    async def steps() -> None:
        first = await server.keep_busy()
        with within(ends):
            outcome = await server.predict(server.make_call(seconds))
        assert reason_of(outcome) == "DEADLINE_IN_QUEUE"
        server.go_on.set()
        await first

    run(steps())
    assert server.judged == 1
    assert server.count("DEADLINE_IN_QUEUE") == 1


def test_image_that_is_judged_for_too_long_is_not_waited_for(server: Server) -> None:
    """The caller learns it; the worker goes on with the next one when it is through."""

    async def steps() -> None:
        with within(CAP):
            outcome = await server.predict(server.make_call())
        assert reason_of(outcome) == "DEADLINE_IN_WORK"
        server.go_on.set()
        assert isinstance(await server.predict(server.make_call()), Detection)

    run(steps())
    assert [outcome.code for outcome in server.outcomes] == ["DEADLINE_EXCEEDED", "OK"]


def test_image_that_is_nearly_judged_is_answered(server: Server) -> None:
    """What was started in time is not thrown away for a moment."""

    async def steps() -> None:
        first = await server.keep_busy()
        await asyncio.sleep(CAP)
        server.go_on.set()
        assert isinstance(await first, Detection)

    run(steps())


@pytest.mark.parametrize(("seconds", "ends"), [(float("inf"), CAP), (0.1, 0.1)])
def test_call_without_a_message_ends_with_its_time(server: Server, seconds: float, ends: float) -> None:
    """No earlier than other calls, and no later."""

    async def steps() -> None:
        with within(ends):
            assert reason_of(await server.predict(server.make_call(seconds, is_silent=True))) == "MESSAGE_LATE"

    run(steps())


def test_images_of_one_message_end_with_its_time(server: Server) -> None:
    """One is in work, one waits."""

    async def steps() -> None:
        images = [ImageToJudge(IMAGE, id=str(number)) for number in range(2)]
        with within(CAP):
            outcomes = await server.judge.answer_all(server.make_call(), images)
        assert [reason_of(outcome) for outcome in outcomes] == ["DEADLINE_IN_WORK", "DEADLINE_IN_QUEUE"]

    run(steps())
    assert server.judged == 1


def test_image_whose_caller_has_gone_is_not_judged(server: Server) -> None:
    """Of a single call and of a stream; both are counted."""

    async def steps() -> None:
        first = await server.keep_busy()
        single = asyncio.create_task(server.predict(server.make_call()))
        stream = server.make_call(peer="stream")
        image = server.judge.start(ImageToJudge(IMAGE), stream, lambda found, _: found)
        await asyncio.sleep(0.02)
        single.cancel()
        stream.is_wanted = False
        await asyncio.wait([single])
        server.go_on.set()
        await first
        assert reason_of(await image) == "CALLER_GONE"

    run(steps())
    assert server.judged == 1
    assert server.count("CALLER_GONE") == 1
    assert sum(outcome.is_image and outcome.code == "CANCELLED" for outcome in server.outcomes) == 1


def test_image_of_a_stream_waits_as_long_as_it_takes(server: Server) -> None:
    """A stream is slowed down instead: its images have no time of their own."""

    async def steps() -> None:
        first = await server.keep_busy()
        image = server.judge.start(ImageToJudge(IMAGE), server.make_call(peer="stream"), lambda found, _: found)
        await asyncio.sleep(2 * CAP)
        server.go_on.set()
        assert isinstance(await image, Detection)
        await first

    run(steps())
