"""``predict_many`` of the asynchronous client: the tasks between gRPC, ``StreamRun`` and the caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import grpc.aio

from .._errors import StrokeClientError
from .._exchange import ImageRequest
from .._types import ImageInput, Prediction, PredictionFailure
from .ending import Ending
from .run import StreamRun
from .wire import Inbox, MessageForm, StreamCall, StreamSettings

_CLOSE_SECONDS = 2.0
"""Time for the orderly end of calls whose results are no longer needed."""

_INLINE_BYTES = 1 << 20
"""Bytes that are checked and hashed in the event loop, in about a millisecond; more of them, and files, in a thread."""

_Request = TypeVar("_Request", ImageRequest, ImageRequest | PredictionFailure)


async def stream_results(
    settings: StreamSettings,
    images: Iterator[ImageInput] | AsyncIterator[ImageInput],
    count_lanes: Callable[[], Awaitable[int]],
    open_rpc: Callable[[MessageForm], Coroutine[Any, Any, Any]],
    translate: Callable[[BaseException], StrokeClientError],
) -> AsyncGenerator[Prediction | PredictionFailure, None]:
    """Yields the results, and cleans up however the caller leaves. The arguments are those of the blocking one, but
    that ``open_rpc`` is a coroutine function, as the token may be asked for in a thread, and takes no messages."""
    inbox = _Inbox(settings.in_flight)
    reader = _ImageReader(settings, images, inbox.wake)
    calls: list[_TaskCall] = []

    def open_call(form: MessageForm) -> _TaskCall:
        calls[:] = [call for call in calls if call.is_open]
        calls.append(_TaskCall(form, open_rpc, translate, inbox))
        return calls[-1]

    run = StreamRun(settings, await count_lanes(), open_call)
    late_error: Exception | None = None
    try:
        while not run.is_done:
            if (result := run.take_result()) is not None:
                yield result
            elif inbox.events:
                run.handle(inbox.events.popleft(), time.monotonic())
            elif run.wants_image and not reader.is_waiting:
                since = time.monotonic()
                try:
                    image = reader.read(run.next_index)
                except (StopIteration, StopAsyncIteration):
                    run.end_images(time.monotonic())
                except Exception as error:  # of the caller's iterable: first deliver what came before it
                    run.end_images(time.monotonic())
                    late_error = error
                else:
                    if image is not None:
                        run.admit(image, since, time.monotonic())
            elif not await inbox.wait(run.wake_at()):
                run.pass_time(time.monotonic())
            else:
                settings.check_open()  # there may be a pause, in which no call says so
        run.finish()
        await _join(calls)
    finally:
        for call in calls:
            call.cancel()
        await reader.close()
        await _join(calls)
    if late_error is not None:
        raise late_error


async def load_hashed(item: ImageInput, load: Callable[[], _Request]) -> _Request:
    """Returns what ``load`` makes of ``item``, with its hash, without holding up the event loop."""

    def load_and_hash() -> _Request:
        image = load()
        if isinstance(image, ImageRequest):
            image.hash_data()
        return image

    return load_and_hash() if _is_quick(item) else await asyncio.to_thread(load_and_hash)


def _is_quick(item: object) -> bool:
    return isinstance(item, bytes | bytearray | memoryview) and len(item) <= _INLINE_BYTES


async def _join(calls: list[_TaskCall]) -> None:
    tasks = [task for call in calls for task in call.tasks]
    if tasks:
        _, running = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
        for task in running:
            task.cancel()


class _Inbox(Inbox):
    def __init__(self, in_flight: int) -> None:
        super().__init__(in_flight)
        self._bell: asyncio.Future[None] | None = None

    async def wait(self, wake_at: float | None) -> bool:
        """Returns True when there may be something new; False at ``wake_at`` (of ``time.monotonic``)."""
        seconds = self.LOOK_SECONDS if wake_at is None else min(wake_at - time.monotonic(), self.LOOK_SECONDS)
        self._bell = asyncio.get_running_loop().create_future()
        self._is_awaited = True
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._bell
        self._is_awaited = False
        return bool(self.events) or wake_at is None or time.monotonic() < wake_at

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)


class _ImageReader:
    """Reads the images one after the other: in the event loop what is quick, in a task the rest."""

    def __init__(
        self,
        settings: StreamSettings,
        images: Iterator[ImageInput] | AsyncIterator[ImageInput],
        wake: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._images = images
        self._wake = wake
        self._task: asyncio.Task[ImageRequest | PredictionFailure] | None = None

    @property
    def is_waiting(self) -> bool:
        return self._task is not None and not self._task.done()

    def read(self, index: int) -> ImageRequest | PredictionFailure | None:
        """Returns the next image; None when it takes longer: to be asked again after ``wake``.

        Raises:
            StopIteration, StopAsyncIteration: there are no more.
            Exception: what the caller's iterable raises.
        """
        if self._task is None:
            if isinstance(self._images, AsyncIterator):
                self._start(self._load_next(self._images, index))
                return None
            item = next(self._images)
            if _is_quick(item):
                return self._settings.load(item, index)
            self._start(self._load(item, index))
            return None
        task, self._task = self._task, None
        return task.result()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def _start(self, work: Any) -> None:
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(lambda _: self._wake())

    async def _load_next(self, images: AsyncIterator[ImageInput], index: int) -> ImageRequest | PredictionFailure:
        return await self._load(await anext(images), index)

    async def _load(self, item: ImageInput, index: int) -> ImageRequest | PredictionFailure:
        return await load_hashed(item, lambda: self._settings.load(item, index))


class _TaskCall(StreamCall):
    """One call; see ``StreamCall``."""

    def __init__(
        self,
        form: MessageForm,
        open_rpc: Callable[[MessageForm], Coroutine[Any, Any, Any]],
        translate: Callable[[BaseException], StrokeClientError],
        inbox: _Inbox,
    ) -> None:
        super().__init__(form, inbox)
        self._translate = translate
        self._outbox: asyncio.Queue[list[ImageRequest] | None] = asyncio.Queue()
        self._opening = asyncio.create_task(open_rpc(form))
        self._sender = asyncio.create_task(self._send())
        self._receiver = asyncio.create_task(self._receive())
        self.tasks = (self._opening, self._sender, self._receiver)

    @property
    def is_open(self) -> bool:
        return not all(task.done() for task in self.tasks)

    def cancel(self) -> None:
        opening = self._opening
        if not opening.cancel() and not opening.cancelled() and opening.exception() is None:
            opening.result().cancel()
        self._sender.cancel()

    def _put(self, images: list[ImageRequest] | None) -> None:
        self._outbox.put_nowait(images)

    async def _find_rpc(self) -> Any:
        """Returns gRPC's call; who waits for it may be cancelled without it.

        Raises:
            StrokeClientError: there is none.
        """
        await asyncio.wait([self._opening])
        return self._opening.result()

    async def _send(self) -> None:
        # A call that is over says so to the receiver, too, and so does one that was never opened.
        with suppress(grpc.RpcError, asyncio.InvalidStateError, StrokeClientError):
            rpc = await self._find_rpc()
            while (images := await self._outbox.get()) is not None:
                await rpc.write(images)
            await rpc.done_writing()

    async def _receive(self) -> None:
        error: StrokeClientError | None = None
        rpc: Any = None
        try:
            rpc = await self._find_rpc()
            ending = Ending(rpc)
            async for answers in rpc:
                if not self._take_answers(answers):
                    rpc.cancel()
                    break
        except StrokeClientError as failure:
            error = failure
        except grpc.RpcError as rpc_error:
            end = await ending.find(rpc_error)
            if end.code() is not grpc.StatusCode.OK:  # otherwise it was ended as if all was done
                error = await asyncio.to_thread(self._translate, end)
        except asyncio.CancelledError:  # of the call, by `cancel` or a closed channel
            if not (self._opening.cancelled() if rpc is None else rpc.cancelled()):
                raise
        self._sender.cancel()
        self._take_end(error)
