"""One stream of requests: read ahead of its answers, within bounds, and answered in order."""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Generic, TypeVar

from server.admission.inbox import Held
from server.api.rpc.call import RpcCall
from server.errors import BudgetExceededError, StrokeError, UnavailableError

HOLD_SECONDS = 0.05
"""How long finished answers wait for the rest of their message: one message costs less than several."""

RESUME_SECONDS = 0.001
"""Hint to those whose stream has lived long enough: nothing is busy, and nothing is away."""

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class StreamForm(Generic[Request, Answer]):
    """What the messages of a method for streams hold."""

    split: Callable[[bytes], Sequence[Request]]
    """Returns the requests in a message, at least one. Raises RequestError."""

    pack: Callable[[Sequence[Answer]], bytes]
    """Returns a message of answers to requests of one message, of which there is at least one."""

    was_judged: Callable[[Answer], bool]
    """Whether an answer is to something that could be judged."""

    count_images: Callable[[Request], int] = lambda request: 1
    """How many images a request has."""


@dataclass
class Group(Generic[Answer]):
    """The images of one message."""

    answers: list[asyncio.Future[Answer]]
    message: Held
    size: int
    """Bytes of the message."""
    weight: int = 1
    """Images of each answer."""


class Stream(Generic[Request, Answer]):
    """Reads messages as long as few images are unanswered, and sends their answers in order.

    Reading and answering are two tasks: waiting for the next message must not hold back the answer to the one before,
    since some callers send the next image only when they have read the last answer.

    Attributes:
        last_judged: when an image of it was last judged, in seconds of ``time.monotonic``.
    """

    def __init__(
        self,
        call: RpcCall,
        form: StreamForm[Request, Answer],
        judge: Callable[[Request], asyncio.Future[Answer]],
        *,
        window: int,
        window_bytes: int,
        idle_seconds: float,
        most_bytes: int,
        most_seconds: float = math.inf,
    ) -> None:
        """Reads nothing yet.

        Args:
            call: the call.
            form: what its messages hold. A message that is not of that form ends the stream after the answers before.
            judge: starts the work on one request.
            window: images that may be unanswered before no more messages are taken; the rest waits in the network.
            window_bytes: bytes of them, likewise.
            idle_seconds: the stream ends when nothing arrives, or no answer is taken, for so long.
            most_bytes: of a message.
            most_seconds: after which it takes no more, and ends with UNAVAILABLE once what was taken is answered.
        """
        self._call = call
        self._window, self._window_bytes = window, window_bytes
        self._idle_seconds = idle_seconds
        self._form, self._judge, self._most_bytes = form, judge, most_bytes
        self._most_seconds = most_seconds
        self._groups: asyncio.Queue[Group[Answer] | None] = asyncio.Queue()
        self._unanswered = self._unanswered_bytes = 0
        self._room = asyncio.Event()
        self._error: Exception | None = None
        self._reader: asyncio.Task[None] | None = None
        self.last_judged = time.monotonic()

    async def run(self) -> None:
        """Serves the stream to its end.

        Raises:
            StrokeError: what ended it, after the answers to what was taken before.
            Exception: a fault of the server, likewise.
        """
        self._reader = asyncio.create_task(self._read())
        ageing = asyncio.get_running_loop().call_later(self._most_seconds, self.end, old_connection())
        try:
            while (group := await self._next_group()) is not None:
                await self._answer(group)
            if self._error is not None:
                raise self._error
        finally:
            ageing.cancel()
            self._reader.cancel()
            while not self._groups.empty():
                if (rest := self._groups.get_nowait()) is not None:
                    rest.message.release()

    def end(self, error: StrokeError) -> None:
        """Takes no more messages; the stream ends with ``error`` after the answers to those that were taken."""
        if self._error is None and self._reader is not None and not self._reader.done():
            self._error = error
            self._reader.cancel()

    async def _read(self) -> None:
        try:
            while (message := await self._call.receive()) is not None:
                try:
                    answers, images = self._judge_all(await self._call.unfold(message, self._most_bytes))
                except BaseException:
                    message.release()
                    raise
                if message.share is not None:
                    message.share.add_images(images)
                weight = max(1, images // len(answers))
                self._unanswered += weight * len(answers)
                self._unanswered_bytes += message.size
                self._groups.put_nowait(Group(answers, message, message.size, weight))
                while self._unanswered >= self._window or self._unanswered_bytes >= self._window_bytes:
                    self._room.clear()
                    await self._room.wait()
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold the message, and this holds the error
            self._error = self._error or error
        finally:
            self._groups.put_nowait(None)

    def _judge_all(self, data: bytes) -> tuple[list[asyncio.Future[Answer]], int]:
        """Starts the work on what a message holds, so many images. The parts of it are held by no frame that waits."""
        requests = self._form.split(data)
        return [self._judge(request) for request in requests], sum(map(self._form.count_images, requests))

    async def _next_group(self) -> Group[Answer] | None:
        # Here nothing is outstanding: what was taken has been answered.
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await self._groups.get()
        except TimeoutError:
            raise BudgetExceededError(
                "STREAM_IDLE", f"Nothing arrived on the stream for {self._idle_seconds:g} s."
            ) from None

    async def _answer(self, group: Group[Answer]) -> None:
        waiting = group.answers
        try:
            while waiting:
                await asyncio.wait(waiting, timeout=HOLD_SECONDS)
                await asyncio.wait(waiting[:1])
                answers = [future.result() for future in takewhile(asyncio.Future.done, waiting)]
                waiting = waiting[len(answers) :]
                if not waiting:
                    group.message.release()  # before the caller takes its time
                if any(map(self._form.was_judged, answers)):
                    self.last_judged = time.monotonic()
                await self._send(self._form.pack(answers))
                self._unanswered -= group.weight * len(answers)
                self._room.set()
            self._unanswered_bytes -= group.size
            self._room.set()
        finally:
            group.message.release()

    async def _send(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(self._idle_seconds):
                await self._call.context.write(message)
        except TimeoutError:
            self._call.let_go()  # gRPC's send would wait for ever
            raise asyncio.CancelledError("an answer was not taken") from None


def old_connection() -> UnavailableError:
    return UnavailableError(
        "CONNECTION_OLD",
        "The stream has lived as long as a connection may: send the rest again on another stream.",
        retry_after=RESUME_SECONDS,
    )
