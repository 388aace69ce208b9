"""``predict_many``: what to read, send, repeat, give up and return, and when.

``StreamRun`` holds all decisions and no input or output: it knows no thread and no event loop. Who drives it
(``client.stream.threads``, ``client.stream.tasks``) reads the images, opens the calls, reports what happens on them,
and waits no longer than ``wake_at``.

Images are shared out among lanes, one call each. A lane whose call breaks sends its unanswered images again on a new
call, which goes to another server where there are several; the other lanes go on meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .._errors import (
    DeadlineExceededError,
    ImageTooLargeError,
    IntegrityError,
    ServerError,
    StrokeClientError,
    error_from_status,
)
from .._exchange import ImageRequest, check_id, read_answer
from .._proto import stroke_pb2
from .._retry import Retry, is_repeatable
from .._types import Prediction, PredictionFailure
from .wire import BATCHES, SINGLES, MessageForm, StreamCall, StreamEvent, StreamSettings

_TIMEOUTS_IN_A_ROW = 2
"""The first is taken for a bad image, the second for a dead server."""

_OLD = "CONNECTION_OLD"
"""Reason of a server whose stream has lived as long as it may."""

_LINGER_SECONDS = 0.005
"""How long an image waits for others to go in one message with it: long enough to read half a window from a disk, and
not noticed by who waits for an answer."""

_FIRST_SHARE_SECONDS = 1.0
_SHARE_SECONDS = 10.0
"""When several servers are shared out again: soon after the start, when not all of them may have been connected yet,
and then from time to time, for one that was restarted."""


class Window:
    """Which images are read, held, and returned: at most ``in_flight`` were read without their result being taken.

    It is refilled by halves, each of which goes in one message where there is one server: while the server judges the
    one, the other is on its way.
    """

    def __init__(self, in_flight: int, *, ordered: bool) -> None:
        self._kept = in_flight // 2
        self._refill = in_flight - self._kept
        self._ordered = ordered
        self._results: dict[int, Prediction | PredictionFailure] = {}  # not yet taken
        self._held = 0
        self._returned = 0
        self._to_read = 0
        self.next_index = 0
        """Position of the next image to read."""

    @property
    def is_empty(self) -> bool:
        return self._held == 0

    @property
    def is_filled(self) -> bool:
        """True when there is nothing more to read before results are taken, or for the half that was just read."""
        return self._to_read == 0

    @property
    def wants_image(self) -> bool:
        """True when an image may be read."""
        if self._to_read == 0 and self._held <= self._kept:
            self._to_read = self._refill
        return self._to_read > 0

    def admit(self) -> None:
        """Takes the image with ``next_index``."""
        self._held += 1
        self._to_read -= 1
        self.next_index += 1

    def put(self, result: Prediction | PredictionFailure) -> None:
        """Takes the result of an image that was admitted."""
        self._results[result.index] = result

    def take(self) -> Prediction | PredictionFailure | None:
        """Returns the next result, or None as long as there is none."""
        index = self._returned if self._ordered else next(iter(self._results), -1)
        result = self._results.pop(index, None)
        if result is not None:
            self._returned += 1
            self._held -= 1
        return result


@dataclass(slots=True, eq=False)
class Lane:
    """A call and its images. The call is opened by the first image, and again after a break."""

    open_call: Callable[[], StreamCall]
    call: StreamCall | None = None
    sent: deque[ImageRequest] = field(default_factory=deque)
    """Without an answer on ``call``, in the order of the answers to come."""

    waiting: deque[ImageRequest] = field(default_factory=deque)
    """To be sent when the pause is over."""

    paused_until: float = 0.0
    is_answered: bool = False
    """True once there was an answer on ``call``."""

    heard_at: float = 0.0
    """When the last answer arrived, or the call was opened."""

    retry: Retry | None = None
    """The tries since a call broke, until there is an answer again."""

    @property
    def images(self) -> int:
        return len(self.sent) + len(self.waiting)

    def flush(self, now: float) -> None:
        """Sends what waits, unless there is a pause."""
        if not self.waiting or now < self.paused_until:
            return
        if self.call is None:
            self.call = self.open_call()
            self.is_answered, self.heard_at = False, now
        for image in self.waiting:
            image.sent_at = now
        self.call.send(self.waiting)
        self.sent.extend(self.waiting)
        self.waiting.clear()

    def take_back(self) -> None:
        """Lets go of the call; the images without an answer wait for the next one, in their order."""
        self.call = None
        self.waiting.extendleft(reversed(self.sent))
        self.sent.clear()

    def answer_due(self, timeout: float) -> float:
        """Returns when the answer to the oldest image is due. Time is counted from the answer before: until then the
        server was busy with other images."""
        return max(self.sent[0].sent_at, self.heard_at) + timeout


class StreamRun:
    """One run of ``predict_many``. All times are seconds of ``time.monotonic``."""

    def __init__(self, settings: StreamSettings, lanes: int, open_call: Callable[[MessageForm], StreamCall]) -> None:
        """Begins a run, of which nothing has been sent.

        Args:
            settings: of this run.
            lanes: calls side by side, one for each server.
            open_call: starts a call; it does not wait, and its StrokeClientError ends the run.
        """
        self._settings = settings
        self._open_call = open_call
        self._form = BATCHES
        self._lanes = [Lane(self._open) for _ in range(min(lanes, settings.in_flight))]
        self._retiring: list[Lane] = []  # they get no more images
        self._share_at: float | None = None
        self._window = Window(settings.in_flight, ordered=settings.ordered)
        self._collected: list[ImageRequest] = []  # to go in one message
        self._send_at = 0.0  # at the latest
        self._more = True
        self._timeouts = 0  # without an answer in between

    @property
    def next_index(self) -> int:
        """Position of the next image to read."""
        return self._window.next_index

    @property
    def wants_image(self) -> bool:
        """True when an image may be read."""
        return self._more and self._window.wants_image

    @property
    def is_done(self) -> bool:
        return not self._more and self._window.is_empty

    def end_images(self, now: float) -> None:
        """States that there are no more images."""
        self._more = False
        self._send_collected(now)

    def admit(self, image: ImageRequest | PredictionFailure, since: float, now: float) -> None:
        """Takes the image with ``next_index``, which has been read since ``since``, and sends it: at once, or with
        those that follow soon."""
        self._window.admit()
        if isinstance(image, PredictionFailure):
            self._window.put(image)
        else:
            if not self._collected:
                self._send_at = since + _LINGER_SECONDS
            self._collected.append(image)
        if self._window.is_filled or now >= self._send_at:
            self._send_collected(now)

    def take_result(self) -> Prediction | PredictionFailure | None:
        """Returns the next result, or None as long as there is none."""
        return self._window.take()

    def wake_at(self) -> float | None:
        """Returns when ``pass_time`` has something to do; None: when nothing happens, never."""
        times = [lane.answer_due(self._settings.timeout) for lane in self._all_lanes() if lane.sent]
        times.extend(lane.paused_until for lane in self._all_lanes() if lane.waiting)
        if self._collected:
            times.append(self._send_at)
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
        if now >= self._send_at:
            self._send_collected(now)

    def handle(self, event: StreamEvent, now: float) -> None:
        """Takes what happened on a call.

        Raises:
            StrokeClientError: the run cannot go on.
        """
        lane = next((lane for lane in self._all_lanes() if lane.call is event.call), None)
        if lane is None:  # of a call that is no longer wanted
            return
        lane.heard_at = event.at
        if event.answers is not None:
            if not event.answers:
                raise _misplaced_answer()
            for answer in event.answers:
                self._handle_answer(lane, answer, now)
        elif event.error is None:
            message = f"the server at {self._settings.target} ended the stream before it had answered: see its log"
            self._handle_end(lane, event.call.form, ServerError(message, "STREAM_ENDED"), now)
        else:
            self._handle_end(lane, event.call.form, event.error, now)
        if lane in self._retiring and lane.images == 0:
            self._retiring.remove(lane)
            if lane.call is not None:
                lane.call.finish()
        self._send_collected(now)  # whoever takes the results may take its time

    def finish(self) -> None:
        """Half-closes the calls, after the last result."""
        for lane in self._all_lanes():
            if lane.call is not None:
                lane.call.finish()

    def _all_lanes(self) -> list[Lane]:
        return [*self._retiring, *self._lanes]

    def _open(self) -> StreamCall:
        return self._open_call(self._form)

    def _send_collected(self, now: float) -> None:
        if self._collected:
            images, self._collected = self._collected, []
            if len(self._lanes) > 1 or self._settings.count_servers is not None:
                self._share_out(now)
            self._assign(images, now)

    def _assign(self, images: Iterable[ImageRequest], now: float) -> None:
        for image in images:
            lane = min(self._lanes, key=lambda lane: (now < lane.paused_until, lane.images))
            lane.waiting.append(image)
        for lane in self._lanes:
            lane.flush(now)

    def _share_out(self, now: float) -> None:
        """Lets new calls take the images to come, so that they are shared out among the servers that are up now. gRPC
        chooses a server for each call when it begins, and calls that begin together go to different ones."""
        if self._share_at is None:
            self._share_at = now + _FIRST_SHARE_SECONDS
        if now < self._share_at or any(lane.retry or lane.waiting for lane in self._lanes):
            return
        self._share_at = now + _SHARE_SECONDS
        count = self._settings.count_servers
        lanes = min((count and count()) or len(self._lanes), self._settings.in_flight)
        if lanes == len(self._lanes) == 1:  # there is nothing to share
            return
        for lane in self._lanes:
            if lane.sent:
                self._retiring.append(lane)
            elif lane.call is not None:
                lane.call.finish()
        self._lanes = [Lane(self._open) for _ in range(lanes)]

    def _handle_answer(self, lane: Lane, answer: stroke_pb2.PredictStreamResponse, now: float) -> None:
        if not lane.sent:
            raise _misplaced_answer()
        image = lane.sent.popleft()
        lane.is_answered = True
        if answer.WhichOneof("result") == "error":
            fault = answer.error
            check_id(fault.id, image)
            error = error_from_status(
                fault.code,
                fault.reason,
                fault.message,
                target=self._settings.target,
                request_id=fault.id,
                retry_after=fault.retry_after_ms / 1000 or None,
            )
            image.retry = image.retry or self._start_retry(now)
            if (pause := image.retry.judge(error, now)) is not None:
                self._note_wait(error)
                lane.paused_until = max(lane.paused_until, now + pause)
                lane.waiting.append(image)
                lane.flush(now)
                return
            self._fail(image, image.retry.failure)
        else:
            try:
                self._window.put(read_answer(answer.response, image))
            except (IntegrityError, ServerError) as error:
                if error.reason == "ANSWER_MISPLACED":  # from here on no answer can be trusted
                    raise
                self._fail(image, error)
        self._timeouts = 0
        lane.retry = None

    def _handle_end(self, lane: Lane, form: MessageForm, error: StrokeClientError, now: float) -> None:
        largest = max(lane.sent, key=lambda image: len(image.data), default=None)
        lane.take_back()
        is_old = error.reason == _OLD and lane.is_answered  # the server wants another connection; nothing has failed
        if largest is None or is_old:  # an idle stream may end, too; the next image opens a new one
            pass
        elif isinstance(error, ImageTooLargeError) and len(largest.data) > form.most_bytes:
            # gRPC does not say which message was above the limit; that of the largest image, which it had to itself,
            # surely was.
            lane.waiting.remove(largest)
            self._fail(largest, error)
        elif form is BATCHES and (error.code == "UNIMPLEMENTED" or isinstance(error, ImageTooLargeError)):
            # A server from before batches, or one that takes messages of no more than some small images.
            self._form = SINGLES
        else:
            # STREAM_ENDED: as a restart may do it. DEADLINE_EXCEEDED: the call has no deadline of ours, so it is the
            # server's rule against idle streams, which can cross with an image that was just sent.
            passes = error.reason == "STREAM_ENDED" or is_repeatable(error) or error.code == "DEADLINE_EXCEEDED"
            lane.retry = lane.retry or self._start_retry(now)
            pause = lane.retry.judge(error, now, passes=passes)
            if pause is None:
                raise lane.retry.failure
            self._note_wait(error)
            lane.paused_until = max(lane.paused_until, now + pause)
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

    def _start_retry(self, now: float) -> Retry:
        return Retry(self._settings.retry, now, self._settings.timeout)

    def _note_wait(self, error: StrokeClientError) -> None:
        if self._settings.note_wait is not None:
            self._settings.note_wait(error)

    def _fail(self, image: ImageRequest, error: StrokeClientError) -> None:
        error.request_id = error.request_id or image.id
        self._window.put(PredictionFailure(image.source, error, image.index))


def _misplaced_answer() -> IntegrityError:
    return IntegrityError("the server answered what it was not asked: report this", "ANSWER_MISPLACED")
