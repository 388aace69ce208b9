"""What is the same for both drivers of ``client._stream``, threads and event loop: calls, lanes, and their events."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from proto import stroke_pb2

from ._errors import StrokeClientError
from ._exchange import ImageRequest
from ._retry import Retry
from ._stream_messages import MessageForm


@dataclass(slots=True)
class StreamEvent:
    """What happened on a call: a message of answers, or (None) its end with its error, if any."""

    call: StreamCall
    at: float
    """When it arrived, in seconds of ``time.monotonic``; it may have waited for a slow caller since."""

    answers: Sequence[stroke_pb2.PredictStreamResponse] | None
    error: StrokeClientError | None = None


class Inbox(ABC):
    """Where the receivers of the calls leave events for whoever drives the run.

    Waking it up costs as much as all else that is done for an answer. So it is woken for half a window of answers, or
    when no more are to come, and looks up from time to time.
    """

    LOOK_SECONDS = 0.05
    """Longest time that an answer lies unseen while others are owed."""

    def __init__(self, in_flight: int) -> None:
        self.events: deque[StreamEvent] = deque()
        self._batch = in_flight // 2
        self._is_awaited = False

    def put(self, event: StreamEvent, *, is_last: bool) -> None:
        """Takes an event; ``is_last``: no other comes on its call before something is sent."""
        self.events.append(event)
        if is_last or sum(len(event.answers or ()) for event in self.events) >= self._batch:
            self.wake()

    def wake(self) -> None:
        """Ends the wait, if there is one."""
        if self._is_awaited:
            self._is_awaited = False
            self._ring()

    @abstractmethod
    def _ring(self) -> None: ...


class StreamCall(ABC):
    """An open call. None of its public methods waits."""

    def __init__(self, form: MessageForm, inbox: Inbox) -> None:
        self.form = form
        self._inbox = inbox
        self._owed = 0
        self._received = 0

    def send(self, images: Iterable[ImageRequest]) -> None:
        """Sends images after those before them."""
        for message in self.form.split(images):
            self._owed += len(message)
            self._put(message)

    def finish(self) -> None:
        """Half-closes: the server ends the call when it has answered everything."""
        self._put(None)

    @abstractmethod
    def cancel(self) -> None:
        """Ends the call now."""

    @abstractmethod
    def _put(self, images: list[ImageRequest] | None) -> None:
        """Hands the images of a message, or None as the end, to who sends them."""

    def _take_answers(self, answers: Sequence[stroke_pb2.PredictStreamResponse]) -> bool:
        """Hands on the answers of a message. Returns False when they were not asked for: to be received no longer, so
        that such messages cannot fill the memory."""
        self._received += len(answers)
        is_sound = bool(answers) and self._received <= self._owed
        is_last = self._received >= self._owed or not is_sound
        self._inbox.put(StreamEvent(self, time.monotonic(), answers), is_last=is_last)
        return is_sound

    def _take_end(self, error: StrokeClientError | None) -> None:
        """Hands on that the call is over."""
        self._inbox.put(StreamEvent(self, time.monotonic(), None, error), is_last=True)


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
            self.heard_at = now
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
