"""Who calls a server, in two ways: as hospitals do, with this project's client, and with what is on the wire. Each call
is written into the history."""

from __future__ import annotations

import hashlib
import itertools
import time
from contextlib import ExitStack
from typing import Any

import grpc

from bench.faults.history import OK, Ended, History, Sent
from client import StrokeClient, StrokeClientError
from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc

REASON_KEY = "stroke-reason"
HINT_KEY = "grpc-retry-pushback-ms"


class Caller:
    """One who calls. May be used by several threads."""

    def __init__(self, name: str, history: History) -> None:
        """Has made no call.

        Args:
            name: what the history calls it; no other caller has it.
            history: is told of each call.
        """
        self.name = name
        self._history = history
        self._numbers = itertools.count()

    def call(self, image: bytes, deadline: float) -> Ended:
        """Sends an image, and returns what has come of it; raises nothing of that."""
        number = f"{self.name}-{next(self._numbers)}"
        sha256 = hashlib.sha256(image).hexdigest()
        self._history.add(Sent(number, self.name, sha256, deadline, time.monotonic()))
        try:
            ended = self._send(number, sha256, image, deadline)
        except Exception as error:  # what no client should raise: a status that is none
            ended = Ended(number, f"{type(error).__name__}: {error}", time.monotonic())
        self._history.add(ended)
        return ended

    def _send(self, number: str, sha256: str, image: bytes, deadline: float) -> Ended:
        raise NotImplementedError

    def close(self) -> None:
        """Ends its connection."""


class LibraryCaller(Caller):
    """With the client, which repeats what may be repeated."""

    def __init__(self, name: str, history: History, address: str) -> None:
        super().__init__(name, history)
        self._client = StrokeClient(address)

    def _send(self, number: str, sha256: str, image: bytes, deadline: float) -> Ended:
        try:
            answer = self._client.predict(image, timeout=deadline, request_id=number)
        except StrokeClientError as error:
            return Ended(number, error.code or type(error).__name__, time.monotonic(), error.reason)
        return Ended(
            number,
            OK,
            time.monotonic(),
            answer_id=answer.request_id,
            sha256=answer.image_sha256,
            version=answer.version,
            digest=answer.digest,
            scores=tuple(answer.scores.values()),
        )

    def close(self) -> None:
        self._client.close()


class StubCaller(Caller):
    """With a stub of gRPC on a connection of its own, without repetitions."""

    def __init__(self, name: str, history: History, address: str) -> None:
        super().__init__(name, history)
        self._channel = connect(address)
        self._stub = stroke_pb2_grpc.StrokeServiceStub(self._channel)

    def _send(self, number: str, sha256: str, image: bytes, deadline: float) -> Ended:
        request = pb.PredictRequest(image=image, image_sha256=sha256, id=number)
        try:
            answer = self._stub.Predict(request, timeout=deadline)
        except grpc.RpcError as error:
            return read_error(number, error)
        return read_answer(number, answer)

    def close(self) -> None:
        self._channel.close()


def connect(address: str, **options: int) -> grpc.Channel:
    """A connection of its own, without repetitions and without limits of its own."""
    settings = {
        "use_local_subchannel_pool": 1,
        "enable_retries": 0,
        "max_send_message_length": -1,
        "max_reconnect_backoff_ms": 200,
        "initial_reconnect_backoff_ms": 100,
        **options,
    }
    return grpc.insecure_channel(address, options=[(f"grpc.{name}", value) for name, value in settings.items()])


def read_answer(number: str, answer: pb.PredictResponse) -> Ended:
    """An answer as the history has it."""
    return Ended(
        number,
        OK,
        time.monotonic(),
        answer_id=answer.id,
        sha256=answer.image_sha256,
        version=answer.model_version,
        digest=answer.model_digest,
        scores=tuple(score.probability for score in answer.scores),
    )


def read_error(number: str, error: Any) -> Ended:
    """A ``grpc.RpcError`` as the history has it."""
    trailing = dict(error.trailing_metadata() or ())
    return Ended(number, error.code().name, time.monotonic(), trailing.get(REASON_KEY, ""))


def close_all(callers: list[Caller]) -> None:
    """Ends the connections of all."""
    with ExitStack() as stack:
        for caller in callers:
            stack.callback(caller.close)
