"""``predict_many``: what to read, send, repeat, give up and return, and when.

``StreamRun`` holds all decisions and no input or output: it knows no thread and no event loop. Who drives it
(``client._stream_threads``, ``client._stream_tasks``) reads the images, opens the calls, reports what happens on them,
and waits no longer than ``wake_at``.

Images are shared out among lanes, one PredictStream call each. A lane whose call breaks sends its unanswered images
again on a new call, which goes to another server where there are several; the other lanes go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from client._errors import (
    DeadlineExceededError,
    ImageTooLargeError,
    IntegrityError,
    ServerError,
    StrokeClientError,
    error_from_status,
)
from client._exchange import ImageRequest, check_id, describe_source, load_request, read_answer
from client._stream_lane import Lane, StreamCall, StreamEvent, choose_pause
from client._types import ImageInput, Prediction, PredictionFailure
from proto import stroke_pb2

_TRANSIENT = {"UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"}
"""Codes after which sending again may help."""

_TRIES_AT_START = 4
_TRIES_WITHIN_RUN = 8
"""Tries of a lane without an answer in between before the run ends: about 1.5 s when there has been no answer at all,
about 10 s (the restart of a small box's server) when there has been one."""

_TIMEOUTS_IN_A_ROW = 2
"""The first is taken for a bad image, the second for a dead server."""

_FIRST_SHARE_SECONDS = 1.0
_SHARE_SECONDS = 10.0
"""When several servers are shared out again: soon after the start, when not all of them may have been connected yet,
and then from time to time, for one that was restarted."""


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What one run was asked for, checked."""

    timeout: float
    in_flight: int
    ordered: bool
    model: str
    version: str
    max_image_bytes: int
    target: str

    def load(self, item: ImageInput, index: int) -> ImageRequest | PredictionFailure:
        """Reads one image; one that cannot be read is a failure already.

        Raises:
            TypeError: ``item`` is nothing that can be read as an image.
        """
        try:
            return load_request(item, self.max_image_bytes, model=self.model, version=self.version, index=index)
        except StrokeClientError as error:
            return PredictionFailure(describe_source(item), error, index)


class StreamRun:
    """One run of ``predict_many``. All times are seconds of ``time.monotonic``."""

    def __init__(self, settings: StreamSettings, lanes: int, open_call: Callable[[], StreamCall]) -> None:
        """Args:
        settings: of this run.
        lanes: calls side by side, one for each server.
        open_call: starts a call; it does not wait, and its StrokeClientError ends the run.
        """
        self._settings = settings
        self._open_call = open_call
        self._lanes = [Lane(open_call) for _ in range(min(lanes, settings.in_flight))]
        self._retiring: list[Lane] = []  # they get no more images
        self._share_at: float | None = None
        self._results: dict[int, Prediction | PredictionFailure] = {}  # not yet taken
        self._held = 0  # images that were admitted and whose result was not taken
        self._returned = 0
        self._admitted = 0
        self._filling = True
        self._more = True
        self._answered = False
        self._timeouts = 0  # without an answer in between

    @property
    def next_index(self) -> int:
        """Position of the next image to read."""
        return self._admitted

    @property
    def wants_image(self) -> bool:
        """True when an image may be read. The window is refilled when half of it is free: several images at once wake
        the threads and the other side less often than one by one."""
        if self._held >= self._settings.in_flight:
            self._filling = False
        elif self._held <= self._settings.in_flight // 2:
            self._filling = True
        return self._more and self._filling

    @property
    def is_done(self) -> bool:
        return not self._more and self._held == 0

    def end_images(self) -> None:
        """States that there are no more images."""
        self._more = False

    def admit(self, image: ImageRequest | PredictionFailure, now: float) -> None:
        """Takes the image with ``next_index`` and sends it."""
        self._held += 1
        self._admitted += 1
        if isinstance(image, PredictionFailure):
            self._results[image.index] = image
            return
        if len(self._lanes) > 1:
            self._share_out(now)
        self._assign([image], now)

    def take_result(self) -> Prediction | PredictionFailure | None:
        """Returns the next result, or None as long as there is none."""
        index = self._returned if self._settings.ordered else next(iter(self._results), -1)
        result = self._results.pop(index, None)
        if result is not None:
            self._returned += 1
            self._held -= 1
        return result

    def wake_at(self) -> float | None:
        """Returns when ``pass_time`` has something to do; None: when nothing happens, never."""
        times = [lane.answer_due(self._settings.timeout) for lane in self._all_lanes() if lane.sent]
        times.extend(lane.paused_until for lane in self._all_lanes() if lane.waiting)
        return min(times, default=None)

    def pass_time(self, now: float) -> None:
        """Ends what took too long, and what was a pause. To be called when all events are handled.

        Raises:
            DeadlineExceededError: the server does not answer any more.
        """
        for lane in self._all_lanes():
            if lane.sent and now >= lane.answer_due(self._settings.timeout):
                self._time_out(lane, now)
            lane.flush(now)

    def handle(self, event: StreamEvent, now: float) -> None:
        """Takes what happened on a call.

        Raises:
            StrokeClientError: the run cannot go on.
        """
        lane = next((lane for lane in self._all_lanes() if lane.call is event.call), None)
        if lane is None:  # of a call that is no longer wanted
            return
        lane.heard_at = event.at
        if event.answer is not None:
            self._handle_answer(lane, event.answer, now)
        elif event.error is None:
            message = f"the server at {self._settings.target} ended the stream before it had answered: see its log"
            self._handle_end(lane, ServerError(message, "STREAM_ENDED"), now)
        else:
            self._handle_end(lane, event.error, now)
        if lane in self._retiring and lane.images == 0:
            self._retiring.remove(lane)
            if lane.call is not None:
                lane.call.finish()

    def finish(self) -> None:
        """Half-closes the calls, after the last result."""
        for lane in self._all_lanes():
            if lane.call is not None:
                lane.call.finish()

    def _all_lanes(self) -> list[Lane]:
        return [*self._retiring, *self._lanes]

    def _assign(self, images: Iterable[ImageRequest], now: float) -> None:
        for image in images:
            lane = min(self._lanes, key=lambda lane: (now < lane.paused_until, lane.images))
            lane.waiting.append(image)
            lane.flush(now)

    def _share_out(self, now: float) -> None:
        """Lets new calls take the images to come, so that they are shared out among the servers that are up now. gRPC
        chooses a server for each call when it begins, and calls that begin together go to different ones."""
        if self._share_at is None:
            self._share_at = now + _FIRST_SHARE_SECONDS
        if now < self._share_at or any(lane.breaks or lane.waiting for lane in self._lanes):
            return
        self._share_at = now + _SHARE_SECONDS
        for lane in self._lanes:
            if lane.sent:
                self._retiring.append(lane)
            elif lane.call is not None:
                lane.call.finish()
        self._lanes = [Lane(self._open_call) for _ in self._lanes]

    def _handle_answer(self, lane: Lane, answer: stroke_pb2.PredictStreamResponse, now: float) -> None:
        if not lane.sent:
            raise IntegrityError("the server answered what it was not asked: report this", "ANSWER_MISPLACED")
        image = lane.sent.popleft()
        if answer.WhichOneof("result") == "error":
            fault = answer.error
            check_id(fault.id, image)
            error = error_from_status(
                fault.code, fault.reason, fault.message, target=self._settings.target, request_id=fault.id
            )
            if _may_pass(error) and image.tries + 1 < _TRIES_AT_START:
                image.tries += 1
                lane.paused_until = now + choose_pause(image.tries)
                lane.waiting.append(image)
                lane.flush(now)
                return
            self._fail(image, error)
        else:
            try:
                self._results[image.index] = read_answer(answer.response, image)
            except (IntegrityError, ServerError) as error:
                if error.reason == "ANSWER_MISPLACED":  # from here on no answer can be trusted
                    raise
                self._fail(image, error)
        self._answered = True
        self._timeouts = lane.breaks = 0

    def _handle_end(self, lane: Lane, error: StrokeClientError, now: float) -> None:
        unanswered = list(lane.sent)
        lane.take_back()
        if not unanswered:  # an idle stream may end; the next image opens a new one
            pass
        elif isinstance(error, ImageTooLargeError):
            # gRPC does not say which message was above the limit; the largest one surely is.
            largest = max(unanswered, key=lambda image: len(image.data))
            lane.waiting.remove(largest)
            self._fail(largest, error)
        else:
            lane.breaks += 1
            tries = _TRIES_WITHIN_RUN if self._answered else _TRIES_AT_START
            # STREAM_ENDED: as a restart may do it. DEADLINE_EXCEEDED: the call has no deadline of ours, so it is the
            # server's rule against idle streams, which can cross with an image that was just sent.
            may_pass = error.reason == "STREAM_ENDED" or _may_pass(error) or error.code == "DEADLINE_EXCEEDED"
            if lane.breaks >= tries or not may_pass:
                raise error
            lane.paused_until = now + choose_pause(lane.breaks)
        self._resend(lane, now)

    def _time_out(self, lane: Lane, now: float) -> None:
        error = DeadlineExceededError(
            f"no answer from {self._settings.target} within {self._settings.timeout:g} s: "
            "allow more time, or see why it is slow",
            "DEADLINE_EXCEEDED",
            "DEADLINE_EXCEEDED",
        )
        self._timeouts += 1
        if self._timeouts >= _TIMEOUTS_IN_A_ROW:
            raise error
        self._fail(lane.sent.popleft(), error)
        if lane.call is not None:
            lane.call.cancel()
        lane.take_back()
        self._resend(lane, now)

    def _resend(self, lane: Lane, now: float) -> None:
        if lane in self._retiring:
            self._retiring.remove(lane)
            self._assign(lane.waiting, now)
            lane.waiting.clear()
        else:
            lane.flush(now)

    def _fail(self, image: ImageRequest, error: StrokeClientError) -> None:
        error.request_id = error.request_id or image.id
        self._results[image.index] = PredictionFailure(image.source, error, image.index)


def _may_pass(error: StrokeClientError) -> bool:
    return error.code in _TRANSIENT and not isinstance(error, ImageTooLargeError)
