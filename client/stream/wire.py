"""What both drivers of ``client.stream.run`` share, threads and event loop: the settings of a run, the forms in which
its images travel (several to a message, or one, for servers that know no better), its calls and their events."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .._channel import SERVICE
from .._config import RetryConfig
from .._errors import StrokeClientError, error_from_closed
from .._exchange import ImageRequest, describe_source, load_request
from .._proto import stroke_pb2
from .._types import ImageInput, PredictionFailure


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What one run of ``predict_many`` was asked for, checked."""

    timeout: float
    in_flight: int
    ordered: bool
    model: str
    version: str
    frame: int = 0
    max_image_bytes: int
    target: str
    retry: RetryConfig = RetryConfig()  # noqa: RUF009  # frozen
    is_closed: Callable[[], bool] = lambda: False
    """Whether the client has been closed meanwhile."""

    count_servers: Callable[[], int] | None = None
    """Tells without waiting how many servers there are now, 0 while nobody knows; None: always as many."""

    note_wait: Callable[[StrokeClientError], None] | None = None
    """Called with the failure when it is to be waited out."""

    def check_open(self) -> None:
        """Raises ClientClosedError when the client has been closed."""
        if self.is_closed():
            raise error_from_closed(self.target)

    def load(self, item: ImageInput, index: int) -> ImageRequest | PredictionFailure:
        """Reads one image; one that cannot be read is a failure already.

        Raises:
            TypeError: ``item`` is nothing that can be read as an image.
        """
        try:
            return load_request(
                item, self.max_image_bytes, model=self.model, version=self.version, index=index, frame=self.frame
            )
        except StrokeClientError as error:
            return PredictionFailure(describe_source(item), error, index)


@dataclass(frozen=True)
class MessageForm:
    """A method for streams, and what its messages hold."""

    method: str
    """Name in ``stroke.v1.StrokeService``."""

    most_images: int
    most_bytes: int
    """Of all images in a message; a single image may have more."""

    pack: Callable[[Sequence[ImageRequest]], bytes]
    """Returns the message that carries these images, serialised."""

    unpack: Callable[[bytes], Sequence[stroke_pb2.PredictStreamResponse]]
    """Returns the answers in a serialised message, in the order of their images.

    Raises:
        google.protobuf.message.DecodeError: it is no such message.
    """

    def open_rpc(
        self, channel: Any, messages: Iterable[Sequence[ImageRequest]] | None, metadata: tuple[tuple[str, str], ...]
    ) -> Any:
        """Starts a call on a channel of gRPC, whose messages are images and answers.

        Args:
            channel: of either kind.
            messages: what to send; None: it is written to the call.
            metadata: what goes with the call.
        """
        call = channel.stream_stream(
            f"/{SERVICE}/{self.method}", request_serializer=self.pack, response_deserializer=self.unpack
        )
        return call(messages, metadata=metadata)

    def split(self, images: Iterable[ImageRequest]) -> Iterator[list[ImageRequest]]:
        """Yields the images of one message after the other."""
        message: list[ImageRequest] = []
        size = 0
        for image in images:
            size += len(image.data)
            if message and (len(message) == self.most_images or size > self.most_bytes):
                yield message
                message, size = [], len(image.data)
            message.append(image)
        if message:
            yield message


def _pack_batch(images: Sequence[ImageRequest]) -> bytes:
    # Messages one after the other are one message with the repeated fields of all (protobuf's encoding, "Last One
    # Wins"). Serialised in one go, large images are copied again and again: 0.18 ms for one of 100 kB instead of 0.02.
    return b"".join(_pack_alone(image) for image in images)


def _pack_alone(image: ImageRequest) -> bytes:
    batch = stroke_pb2.PredictBatchesRequest()
    batch.requests.add(**image.to_fields())  # made in place: a finished request would be copied
    data: bytes = batch.SerializeToString()
    return data


def _unpack_batch(data: bytes) -> Sequence[stroke_pb2.PredictStreamResponse]:
    answers: Sequence[stroke_pb2.PredictStreamResponse] = stroke_pb2.PredictBatchesResponse.FromString(data).responses
    return answers


def _unpack_alone(data: bytes) -> Sequence[stroke_pb2.PredictStreamResponse]:
    return (stroke_pb2.PredictStreamResponse.FromString(data),)


BATCHES = MessageForm("PredictBatches", 16, 1 << 20, _pack_batch, _unpack_batch)
"""A message costs either side about as much whatever it holds: an image of 100 kB costs the client 0.5 ms of CPU by
itself and 0.3 ms among others (docs/performance.md). Larger images gain little, and are more to send again when a
connection breaks."""

SINGLES = MessageForm("PredictStream", 1, 0, lambda images: images[0].to_proto().SerializeToString(), _unpack_alone)


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
        # A copy, which is made in one go: whoever takes events takes them meanwhile.
        if is_last or sum(len(event.answers or ()) for event in tuple(self.events)) >= self._batch:
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
