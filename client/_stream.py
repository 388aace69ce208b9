"""``predict_many``: a window of images on a PredictStream call that is opened again when it breaks.

Everything is decided in the caller's thread, which reads images, sends requests and waits for answers with a time
limit; the threads that this needs are in ``client._stream_call``.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from queue import Empty
from typing import Any

import grpc

from client._errors import (
    DeadlineExceededError,
    ImageTooLargeError,
    IntegrityError,
    ServerError,
    StrokeClientError,
    error_from_closed,
    error_from_rpc,
    error_from_status,
)
from client._exchange import check_id, describe_source, read_answer
from client._stream_call import StreamCall, StreamEvent, StreamImage
from client._types import ImageInput, Prediction, PredictionFailure
from proto import stroke_pb2

_TRANSIENT = {"UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"}
"""Codes after which sending again may help."""

_TRIES_AT_START = 4
_TRIES_WITHIN_RUN = 8
"""Tries without an answer in between before the run ends: about 1.5 s when there has been no answer at all, about 10 s
(the restart of a small box's server) when there has been one."""

_TIMEOUTS_IN_A_ROW = 2
"""The first is taken for a bad image, the second for a dead server."""


class StreamRun:
    """One run of ``StrokeClient.predict_many``, which documents the arguments and the behaviour."""

    def __init__(
        self,
        open_call: Callable[[Iterator[stroke_pb2.PredictRequest]], Any],
        load: Callable[[ImageInput], stroke_pb2.PredictRequest],
        *,
        timeout: float,
        in_flight: int,
        target: str,
    ) -> None:
        self._open_call = open_call
        self._load = load
        self._timeout = timeout
        self._in_flight = in_flight
        self._target = target
        self._window: deque[StreamImage] = deque()  # in the order of the images, some with a result
        self._call: StreamCall | None = None
        self._last_event = 0.0
        self._answered = False
        self._breaks = 0  # without an answer in between
        self._timeouts = 0  # likewise

    def results(self, images: Iterator[ImageInput]) -> Generator[Prediction | PredictionFailure, None, None]:
        """Yields the results in order, and cleans up however the caller leaves."""
        more = True
        late_error: Exception | None = None
        try:
            while more or self._window:
                if self._window and (result := self._window[0].result) is not None:
                    self._window.popleft()
                    yield result
                elif self._call is not None and not self._call.events.empty():
                    self._handle(self._call.events.get())  # before reading on: `images` may be slow
                elif more and len(self._window) < self._in_flight:
                    try:
                        self._admit(next(images))
                    except StopIteration:
                        more = False
                    except StrokeClientError:
                        raise
                    except Exception as error:  # of the caller's iterable: first deliver what came before it
                        more, late_error = False, error
                else:
                    self._wait()
            if self._call is not None:
                self._call.finish()
        finally:
            if self._call is not None:
                self._call.close()
        if late_error is not None:
            raise late_error

    def _admit(self, item: ImageInput) -> None:
        """Reads one image and sends it."""
        image = StreamImage(describe_source(item))
        try:
            image.request = self._load(item)
        except StrokeClientError as error:
            image.fail(error)
        self._window.append(image)
        if image.result is None:
            self._connected().send(image)

    def _connected(self) -> StreamCall:
        """Returns the open call; makes one where there is none."""
        if self._call is None:
            with suppress(ValueError):  # how grpc says that the channel is closed
                self._call = StreamCall(self._open_call)
            if self._call is None:
                raise error_from_closed(self._target)
            self._last_event = time.monotonic()
        return self._call

    def _drop_call(self) -> None:
        if self._call is not None:
            self._call.close()
            self._call = None

    def _resend(self) -> None:
        """Sends what has no result yet, in order, on a new call."""
        self._drop_call()
        for image in self._window:
            if image.result is None:
                self._connected().send(image)

    def _wait(self) -> None:
        """Waits for the answer to the oldest image on the stream, no longer than the timeout allows."""
        call = self._connected()
        # Counted from the answer before: until then the server was busy with other images.
        limit = max(call.sent[0].sent_at, self._last_event) + self._timeout
        event = None
        with suppress(Empty):
            event = call.events.get(timeout=max(0.0, limit - time.monotonic()))
        if event is None:
            self._time_out(call.sent[0])
        else:
            self._handle(event)

    def _time_out(self, image: StreamImage) -> None:
        error = DeadlineExceededError(
            f"no answer from {self._target} within {self._timeout:g} s: allow more time, or see why it is slow",
            "DEADLINE_EXCEEDED",
            "DEADLINE_EXCEEDED",
        )
        self._timeouts += 1
        if self._timeouts >= _TIMEOUTS_IN_A_ROW:
            raise error
        image.fail(error)
        self._resend()

    def _handle(self, event: StreamEvent) -> None:
        self._last_event = event.at
        if event.answer is None:
            self._handle_end(event.error)
        else:
            self._handle_answer(event.answer)

    def _handle_answer(self, answer: stroke_pb2.PredictStreamResponse) -> None:
        call = self._connected()
        if not call.sent:
            raise IntegrityError("the server answered what it was not asked: report this", "ANSWER_MISPLACED")
        image = call.sent.popleft()
        if answer.WhichOneof("result") == "error":
            fault = answer.error
            check_id(fault.id, image.request)
            error = error_from_status(fault.code, fault.reason, fault.message, target=self._target, request_id=fault.id)
            if _may_pass(error) and image.tries + 1 < _TRIES_AT_START:
                image.tries += 1
                _pause(image.tries)
                call.send(image)
                return
            image.fail(error)
        else:
            try:
                image.result = read_answer(answer.response, image.request, image.source)
            except (IntegrityError, ServerError) as error:
                if error.reason == "ANSWER_MISPLACED":  # from here on no answer can be trusted
                    raise
                image.fail(error)
        self._answered = True
        self._breaks = self._timeouts = 0

    def _handle_end(self, rpc_error: grpc.RpcError | None) -> None:
        self._drop_call()
        unanswered = [image for image in self._window if image.result is None]
        if not unanswered:  # an idle stream may end; the next image opens a new one
            return
        if rpc_error is None:
            error: StrokeClientError = ServerError(
                f"the server at {self._target} ended the stream before it had answered: see its log", "STREAM_ENDED"
            )
        else:
            error = error_from_rpc(rpc_error, target=self._target)
        if isinstance(error, ImageTooLargeError):
            # gRPC does not say which message was above the limit; the largest one surely is.
            max(unanswered, key=lambda image: len(image.request.image)).fail(error)
        else:
            self._breaks += 1
            tries = _TRIES_WITHIN_RUN if self._answered else _TRIES_AT_START
            # DEADLINE_EXCEEDED: the call has no deadline of ours, so it is the server's rule against idle streams,
            # which can cross with an image that was just sent.
            may_pass = rpc_error is None or _may_pass(error) or error.code == "DEADLINE_EXCEEDED"
            if self._breaks >= tries or not may_pass:
                raise error
            _pause(self._breaks)
        self._resend()


def _may_pass(error: StrokeClientError) -> bool:
    return error.code in _TRANSIENT and not isinstance(error, ImageTooLargeError)


def _pause(tries: int) -> None:
    """Sleeps before try number ``tries`` + 1: 0.2 s, doubling to 2 s, spread so that clients do not come in step."""
    time.sleep(min(0.1 * 2.0**tries, 2.0) * random.uniform(0.8, 1.2))
