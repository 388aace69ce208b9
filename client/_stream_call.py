"""One PredictStream call: the queues and threads between gRPC and the caller's thread.

gRPC's own thread takes requests from a queue, so it never runs code of the user, whose errors it would hide. A receiver
thread moves answers into another queue, because gRPC's iterator cannot wait with a time limit. What to do about an
answer or a broken call is decided in ``client._stream``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import grpc

from client._errors import StrokeClientError
from client._types import Prediction, PredictionFailure, Source
from proto import stroke_pb2

_CLOSE_TIMEOUT = 2.0
"""Seconds to wait for the orderly end of a stream or a thread whose results are no longer needed."""


@dataclass(slots=True, eq=False)
class StreamImage:
    """One image between being read and being answered."""

    source: Source
    request: stroke_pb2.PredictRequest = field(default_factory=stroke_pb2.PredictRequest)
    """Stays empty when the image could not be read."""

    result: Prediction | PredictionFailure | None = None
    sent_at: float = 0.0
    tries: int = 0

    def fail(self, error: StrokeClientError) -> None:
        if error.request_id is None:
            error.request_id = self.request.id or None
        self.result = PredictionFailure(self.source, error)


@dataclass(slots=True)
class StreamEvent:
    """What the receiver saw: an answer, or (None) the end of the stream with its error, if any."""

    at: float
    answer: stroke_pb2.PredictStreamResponse | None
    error: grpc.RpcError | None = None


class StreamCall:
    """One PredictStream call, with its queues and receiver."""

    def __init__(self, open_call: Callable[[Iterator[stroke_pb2.PredictRequest]], Any]) -> None:
        self.sent: deque[StreamImage] = deque()
        self.events: SimpleQueue[StreamEvent] = SimpleQueue()
        self._owed = 0
        self._requests: SimpleQueue[stroke_pb2.PredictRequest | None] = SimpleQueue()
        self._rpc = open_call(self._take_requests())
        self._receiver = threading.Thread(target=self._receive, name="stroke-client-receiver", daemon=True)
        self._receiver.start()

    def send(self, image: StreamImage) -> None:
        image.sent_at = time.monotonic()
        self.sent.append(image)
        self._owed += 1
        self._requests.put(image.request)

    def finish(self) -> None:
        """Half-closes the stream and waits a moment for the server to end it, then closes it."""
        self._requests.put(None)
        self._receiver.join(_CLOSE_TIMEOUT)
        self.close()

    def close(self) -> None:
        """Cancels what still runs; no thread is left behind."""
        self._rpc.cancel()
        self._requests.put(None)
        self._receiver.join(_CLOSE_TIMEOUT)

    def _take_requests(self) -> Iterator[stroke_pb2.PredictRequest]:
        while (request := self._requests.get()) is not None:
            yield request

    def _receive(self) -> None:
        received = 0
        error = None
        try:
            for answer in self._rpc:
                self.events.put(StreamEvent(time.monotonic(), answer))
                received += 1
                if received > self._owed:  # unasked answers: stop here, so that they cannot fill the memory
                    self._rpc.cancel()
                    break
        except grpc.RpcError as rpc_error:
            error = rpc_error
        # gRPC's thread waits for the next request and does not notice that the call is over.
        self._requests.put(None)
        self.events.put(StreamEvent(time.monotonic(), None, error))
