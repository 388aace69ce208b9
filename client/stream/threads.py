"""``predict_many`` of the blocking client: the threads and queues between gRPC, ``StreamRun`` and the caller.

Everything is decided in the caller's thread, which also reads the images. gRPC's own thread takes them from a queue,
so it never runs code of the user, whose errors it would hide. A receiver thread for each call takes the answers,
because gRPC's iterator cannot wait with a time limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import grpc

from .._errors import StrokeClientError
from .._exchange import ImageRequest
from .._types import ImageInput, Prediction, PredictionFailure
from .run import StreamRun
from .wire import Inbox, MessageForm, StreamCall, StreamSettings

_CLOSE_SECONDS = 2.0
"""Time for the orderly end of calls whose results are no longer needed."""

OpenRpc = Callable[[MessageForm, Iterator[list[ImageRequest]]], Any]
Translate = Callable[[BaseException], StrokeClientError]


def stream_results(
    settings: StreamSettings,
    images: Iterator[ImageInput],
    count_lanes: Callable[[], int],
    open_rpc: OpenRpc,
    translate: Translate,
) -> Generator[Prediction | PredictionFailure, None, None]:
    """Yields the results, and cleans up however the caller leaves.

    Args:
        settings: of the run.
        images: read in the caller's thread; what it raises is raised after the results of the images before.
        count_lanes: how many calls to have side by side; asked once, when the run begins.
        open_rpc: starts a call of the form's method with these messages; its StrokeClientError ends the run.
        translate: makes an error of the client of grpc's; it may take its time.
    """
    inbox = _Inbox(settings.in_flight)
    calls: list[_ThreadedCall] = []

    def open_call(form: MessageForm) -> _ThreadedCall:
        calls[:] = [call for call in calls if call.is_open]
        calls.append(_ThreadedCall(form, open_rpc, translate, inbox))
        return calls[-1]

    run = StreamRun(settings, count_lanes(), open_call)
    late_error: Exception | None = None
    try:
        while not run.is_done:
            if (result := run.take_result()) is not None:
                yield result
            elif inbox.events:
                run.handle(inbox.events.popleft(), time.monotonic())  # before reading on: `images` may be slow
            elif run.wants_image:
                since = time.monotonic()
                try:
                    image = settings.load(next(images), run.next_index)
                except StopIteration:
                    run.end_images(time.monotonic())
                except Exception as error:  # of the caller's iterable: first deliver what came before it
                    run.end_images(time.monotonic())
                    late_error = error
                else:
                    run.admit(image, since, time.monotonic())
            elif not inbox.wait(run.wake_at()):
                run.pass_time(time.monotonic())
            else:
                settings.check_open()  # there may be a pause, in which no call says so
        run.finish()
        _join(calls)
    finally:
        for call in calls:
            call.cancel()
        _join(calls)
    if late_error is not None:
        raise late_error


def _join(calls: list[_ThreadedCall]) -> None:
    deadline = time.monotonic() + _CLOSE_SECONDS
    for call in calls:
        call.join(max(0.0, deadline - time.monotonic()))


class _Inbox(Inbox):
    def __init__(self, in_flight: int) -> None:
        super().__init__(in_flight)
        self._bell: SimpleQueue[None] = SimpleQueue()

    def wait(self, wake_at: float | None) -> bool:
        """Returns True when there may be events; False at ``wake_at`` (of ``time.monotonic``) without any."""
        seconds = self.LOOK_SECONDS if wake_at is None else min(wake_at - time.monotonic(), self.LOOK_SECONDS)
        self._is_awaited = True
        if not self.events:  # otherwise one came before the flag could be seen
            with suppress(Empty):
                self._bell.get(timeout=max(0.0, seconds))
        self._is_awaited = False
        return bool(self.events) or wake_at is None or time.monotonic() < wake_at

    def _ring(self) -> None:
        self._bell.put(None)


class _ThreadedCall(StreamCall):
    """One call; see ``StreamCall``."""

    def __init__(self, form: MessageForm, open_rpc: OpenRpc, translate: Translate, inbox: _Inbox) -> None:
        super().__init__(form, inbox)
        self._translate = translate
        self._outbox: SimpleQueue[list[ImageRequest] | None] = SimpleQueue()
        self._rpc = open_rpc(form, iter(self._outbox.get, None))
        self._receiver = Thread(target=self._receive, name="stroke-client-receiver", daemon=True)
        self._receiver.start()

    @property
    def is_open(self) -> bool:
        return self._receiver.is_alive()

    def cancel(self) -> None:
        self._rpc.cancel()
        self._put(None)

    def _put(self, images: list[ImageRequest] | None) -> None:
        self._outbox.put(images)

    def join(self, seconds: float) -> None:
        self._receiver.join(seconds)

    def _receive(self) -> None:
        error = None
        try:
            for answers in self._rpc:
                if not self._take_answers(answers):
                    self._rpc.cancel()
                    break
        except grpc.RpcError as rpc_error:
            error = self._translate(rpc_error)
        # gRPC's thread waits for the next images and does not notice that the call is over.
        self._put(None)
        self._take_end(error)
