"""``StrokeClient``: the calls of the service as methods."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from types import TracebackType

import grpc

from client._channel import HEALTH_SERVING, SERVICE, call_unary, health_check, make_channel
from client._config import (
    DEFAULT_IN_FLIGHT,
    DEFAULT_MAX_IMAGE_BYTES,
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    ClientConfig,
    check_timeout,
)
from client._errors import ServerUnavailableError, StrokeClientError, error_from_closed
from client._exchange import build_request, check_text, describe_source, read_answer, read_image
from client._stream import StreamRun
from client._types import ImageInput, ModelInfo, Prediction, PredictionFailure, model_from_proto
from proto import stroke_pb2, stroke_pb2_grpc

_NOT_READY_CODES = {"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "NOT_FOUND"}
"""Codes of a health check that may pass by themselves; NOT_FOUND: the service is not registered yet."""


class StrokeClient:
    """A connection to one server; use it in a ``with`` statement. Methods may be called from several threads.

    It connects at the first call, and again by itself when the connection breaks. Calls that a restarting server
    drops are repeated within their timeout, because judging an image twice does no harm.

    Args:
        target: address of the server, ``HOST:PORT``; without a port 50051 is meant.
        timeout: seconds that a call may take, repetitions included, unless the call states its own; > 0.
        max_image_bytes: images with more bytes are refused before they are sent. The server's own limit is lower.
        channel: a ``grpc.Channel`` to use instead of a new one, for example with TLS. Its owner closes it; ``target``
            then only names the server in messages.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES,
        channel: grpc.Channel | None = None,
    ) -> None:
        self._config = ClientConfig(target, timeout, max_image_bytes)
        self._owned_channel = make_channel(self._config.target) if channel is None else None
        self._channel = self._owned_channel if channel is None else channel
        self._stub = stroke_pb2_grpc.StrokeServiceStub(self._channel)
        self._check_health = health_check(self._channel)
        self._closed = False

    def __enter__(self) -> StrokeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and what runs on it. May be called twice."""
        self._closed = True
        if self._owned_channel is not None:
            self._owned_channel.close()

    def predict(
        self,
        image: ImageInput,
        *,
        model: str = "",
        version: str = "",
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Prediction:
        """Classifies one image.

        Args:
            image: a path, the bytes of an encoded image (PNG or JPEG), or a file opened in binary mode, which is read
                to its end and left open.
            model: name of the model that judges; empty: the server's default.
            version: version of that model; empty: the server's default.
            timeout: seconds that the call may take; None: the client's.
            request_id: identifies the request in the server's log, at most 128 printable ASCII characters, nothing
                that names a patient; None: a random one.

        Raises:
            InvalidImageError: the image cannot be read or judged.
            ModelNotFoundError: no such model or version is served.
            IntegrityError: other bytes were judged than those of the image.
            StrokeClientError: any other failure, such as no server or no answer in time.
            ValueError: ``timeout`` is not a positive, finite number.
            TypeError: ``image`` is nothing that can be read.
        """
        timeout = self._ready(timeout)
        source = describe_source(image)
        data = read_image(image, self._config.max_image_bytes)
        request = build_request(data, model=model, version=version, request_id=request_id)
        response = call_unary(
            self._stub.Predict, request, timeout=timeout, target=self._config.target, request_id=request.id
        )
        return read_answer(response, request, source)

    def predict_many(
        self,
        images: Iterable[ImageInput],
        *,
        model: str = "",
        version: str = "",
        timeout: float | None = None,
        in_flight: int = DEFAULT_IN_FLIGHT,
    ) -> Generator[Prediction | PredictionFailure, None, None]:
        """Classifies many images on one stream; results come in the order of the images.

        ``images`` is read in the caller's thread, at most ``in_flight`` images ahead of the results, so it may be
        endless. An image that cannot be read or judged gives a ``PredictionFailure`` and the run goes on. When the
        connection breaks, the images without an answer are sent again. Close the generator to stop early; the end of
        a ``for`` loop does so.

        Args:
            images: what ``predict`` takes, any number of them.
            model: name of the model that judges; empty: the server's default.
            version: version of that model; empty: the server's default.
            timeout: seconds that each image may take once the server has answered the ones before; None: the client's.
            in_flight: number of images that may be held and be without a result, >= 1.

        Raises:
            StrokeClientError: the run cannot go on: no server, no answers any more, no access.
            ValueError: ``timeout`` or ``in_flight`` is out of range.
            TypeError: ``images`` is one image, or one of them is nothing that can be read.
        """
        timeout = self._ready(timeout)
        if in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {in_flight}")
        if isinstance(images, str | bytes | bytearray | memoryview):
            raise TypeError("images must be an iterable of images; predict() takes a single one")

        def load(image: ImageInput) -> stroke_pb2.PredictRequest:
            data = read_image(image, self._config.max_image_bytes)
            return build_request(data, model=model, version=version, request_id=None)

        run = StreamRun(
            self._stub.PredictStream, load, timeout=timeout, in_flight=in_flight, target=self._config.target
        )
        return run.results(iter(images))

    def model_info(self, name: str = "", version: str = "", *, timeout: float | None = None) -> ModelInfo:
        """Describes one served model; empty arguments mean the server's defaults.

        Raises:
            ModelNotFoundError: no such model or version is served.
            StrokeClientError: any other failure.
        """
        timeout = self._ready(timeout)
        check_text(name, version)
        request = stroke_pb2.GetModelRequest(model_name=name, model_version=version)
        return model_from_proto(call_unary(self._stub.GetModel, request, timeout=timeout, target=self._config.target))

    def list_models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Describes all served models, ordered by name, then version.

        Raises:
            StrokeClientError: the server could not be asked.
        """
        request = stroke_pb2.ListModelsRequest()
        timeout = self._ready(timeout)
        response = call_unary(self._stub.ListModels, request, timeout=timeout, target=self._config.target)
        return [model_from_proto(model) for model in response.models]

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Returns as soon as the server has loaded its models and answers.

        Args:
            timeout: seconds to wait at most; > 0.

        Raises:
            ServerUnavailableError: no server answered, or it was not ready in time (SERVER_NOT_READY).
            StrokeClientError: the server answered something that waiting does not change.
        """
        deadline = time.monotonic() + self._ready(timeout)
        pause = 0.02
        while True:
            # One check must not use up the whole time: a server that hangs may be replaced by one that does not.
            left = max(deadline - time.monotonic(), 0.05)
            failure: StrokeClientError = ServerUnavailableError(
                f"the server at {self._config.target} was not ready after {timeout:g} s: see its log, or wait longer",
                "SERVER_NOT_READY",
            )
            try:
                status = call_unary(self._check_health, SERVICE, timeout=min(left, 2.0), target=self._config.target)
                if status == HEALTH_SERVING:
                    return
            except StrokeClientError as error:
                if error.code not in _NOT_READY_CODES:
                    raise
                if error.code == "UNAVAILABLE":
                    failure = error
            if time.monotonic() + pause >= deadline:
                raise failure
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def _ready(self, timeout: float | None) -> float:
        """Returns the timeout that holds for a call, in seconds, after checking that a call can be made."""
        if self._closed:
            raise error_from_closed(self._config.target)
        return self._config.timeout if timeout is None else check_timeout(timeout)
