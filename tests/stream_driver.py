"""Drives ``StreamRun`` by hand, without threads, event loop or network: time is a number."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import grpc

from client import RetryConfig, ServerUnavailableError, StrokeClientError
from client._exchange import ImageRequest
from client.stream.run import StreamRun
from client.stream.wire import MessageForm, StreamEvent, StreamSettings
from proto import stroke_pb2
from tests.client_fakes import make_response

GONE = ServerUnavailableError("gone", "GONE", "UNAVAILABLE")
OLD = ServerUnavailableError("old", "CONNECTION_OLD", "UNAVAILABLE", retry_after=0.001)
BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


class FakeCall:
    """Records what is sent."""

    def __init__(self, form: MessageForm) -> None:
        self.form = form
        self.messages: list[list[int]] = []
        self.images: list[ImageRequest] = []
        self.answered = 0
        self.ending = ""

    @property
    def indices(self) -> list[int]:
        return [image.index for image in self.images]

    def send(self, images: Iterable[ImageRequest]) -> None:
        for message in self.form.split(images):
            self.messages.append([image.index for image in message])
            for image in message:
                image.hash_data()
                self.images.append(image)

    def finish(self) -> None:
        self.ending = "finished"

    def cancel(self) -> None:
        self.ending = "cancelled"


class Driver:
    """Drives a run by hand."""

    def __init__(
        self,
        *,
        lanes: int = 1,
        in_flight: int = 8,
        ordered: bool = True,
        timeout: float = 10.0,
        max_image_bytes: int = 1000,
        retry: RetryConfig = RetryConfig(),  # noqa: B008  # frozen
        count_servers: Callable[[], int] | None = None,
    ) -> None:
        self.calls: list[FakeCall] = []
        self.settings = StreamSettings(
            timeout=timeout,
            in_flight=in_flight,
            ordered=ordered,
            model="",
            version="",
            max_image_bytes=max_image_bytes,
            target="the-server:50051",
            retry=retry,
            count_servers=count_servers,
        )
        self.run = StreamRun(self.settings, lanes, self.open_call)

    def open_call(self, form: MessageForm) -> FakeCall:
        self.calls.append(FakeCall(form))
        return self.calls[-1]

    def admit(self, count: int, now: float = 0.0, *, seconds: float = 1.0, image: bytes = b"stroke") -> None:
        """Reads images, which takes ``seconds`` each: more than an image waits for others."""
        for _ in range(count):
            assert self.run.wants_image
            self.run.admit(self.settings.load(image, self.run.next_index), now - seconds, now)

    def answer(self, call: FakeCall, now: float = 0.0, *, code: int = 0, retry_after_ms: int = 0) -> None:
        """Answers the oldest image of a call, with an error if there is a code."""
        image = call.images[call.answered]
        call.answered += 1
        if code:
            fault = stroke_pb2.PredictError(
                id=image.id, code=code, reason="OVERLOADED", message="busy", retry_after_ms=retry_after_ms
            )
            answer = stroke_pb2.PredictStreamResponse(error=fault)
        else:
            answer = stroke_pb2.PredictStreamResponse(response=make_response(image.to_proto()))
        self.run.handle(StreamEvent(call, now, [answer]), now)

    def end(self, call: FakeCall, now: float = 0.0, error: StrokeClientError = GONE) -> None:
        self.run.handle(StreamEvent(call, now, None, error), now)

    def take(self) -> list[int]:
        taken = []
        while (result := self.run.take_result()) is not None:
            taken.append(result.index)
        return taken
