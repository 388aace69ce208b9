"""``AsyncStrokeClient``: the calls of the service as coroutines."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from ._channel import SERVICE, UnaryCalls, find_target, open_channel
from ._config import DEFAULT_IN_FLIGHT
from ._core import ClientCore, Readiness, model_from_proto
from ._errors import StrokeClientError, error_from_closed
from ._exchange import check_text, load_request, read_answer, read_explanation
from ._proto import stroke_pb2
from ._types import Explanation, HealthStatus, ImageInput, ModelInfo, Prediction, PredictionFailure
from .stream.tasks import load_hashed, stream_results
from .stream.wire import MessageForm

if TYPE_CHECKING:
    from ._retry import Retry
    from .study.types import StudyInput, StudyPrediction

_Response = TypeVar("_Response")


class AsyncStrokeClient(ClientCore):
    """Asynchronous client: ``StrokeClient`` with coroutines for methods; arguments, results and errors are the same.

        async with AsyncStrokeClient("127.0.0.1:50051") as client:
            prediction = await client.predict("scan.png")
            print(prediction.label, prediction.confidence)

    It belongs to the event loop in which it is made. Files are read in threads, names of a list of servers are looked
    up in one at the first call, and a function that returns the token is called in one, so none of them holds up the
    loop. A cancelled call ends at the server, too.

    Raises:
        RuntimeError: it is made outside of a coroutine, where there is no event loop, or used in another loop.
    """

    _grpc = grpc.aio
    _is_connected = True  # with a channel that somebody else made

    async def __aenter__(self) -> AsyncStrokeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and what runs on it. May be called twice."""
        self._closed = True
        self._closing.set()
        if self._owned_channel is not None:
            await self._owned_channel.close()

    async def predict(
        self,
        image: ImageInput,
        *,
        model: str = "",
        version: str = "",
        timeout: float | None = None,
        request_id: str | None = None,
        frame: int = 0,
    ) -> Prediction:
        """Classifies one image; see ``StrokeClient.predict``. ``timeout`` counts from when the image is read."""
        timeout = self._settle_timeout(timeout)
        limit = self._config.max_image_bytes
        request = await load_hashed(
            image,
            lambda: load_request(image, limit, model=model, version=version, request_id=request_id, frame=frame),
        )
        return read_answer(
            await self._call(lambda calls: calls.predict, request.to_proto(), timeout, request.id), request
        )

    async def explain(
        self,
        image: ImageInput,
        *,
        model: str = "",
        version: str = "",
        timeout: float | None = None,
        request_id: str | None = None,
        frame: int = 0,
    ) -> Explanation:
        """Classifies one image and shows where the evidence lies; see ``StrokeClient.explain``."""
        timeout = self._settle_timeout(timeout)
        limit = self._config.max_image_bytes
        request = await load_hashed(
            image,
            lambda: load_request(image, limit, model=model, version=version, request_id=request_id, frame=frame),
        )
        answer = await self._call(lambda calls: calls.explain, request.to_proto(), timeout, request.id)
        return read_explanation(answer, request)

    def predict_many(
        self,
        images: Iterable[ImageInput] | AsyncIterable[ImageInput],
        *,
        model: str = "",
        version: str = "",
        timeout: float | None = None,
        in_flight: int = DEFAULT_IN_FLIGHT,
        ordered: bool = True,
        frame: int = 0,
    ) -> AsyncGenerator[Prediction | PredictionFailure, None]:
        """Classifies many images; see ``StrokeClient.predict_many``.

            async for result in client.predict_many(paths, ordered=False):
                print(result.index, result.source)

        ``images`` may be an asynchronous iterable, too: results that arrive while it waits are yielded at once. A loop
        that may be left early should close the generator (``contextlib.aclosing``), or the event loop does it later.
        """
        settings = self._settle_stream(
            images, model=model, version=version, timeout=timeout, in_flight=in_flight, ordered=ordered, frame=frame
        )
        source = aiter(images) if isinstance(images, AsyncIterable) else iter(images)
        return stream_results(settings, source, self._count_servers, self._open_stream, self._translate)

    async def predict_study(
        self,
        images: StudyInput,
        *,
        model: str = "",
        version: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
        on_file: Callable[[int], None] | None = None,
    ) -> StudyPrediction:
        """Judges the slices of one study; see ``StrokeClient.predict_study``. One file is held at a time. A folder is
        listed in a thread."""
        from .study.files import StudyFiles
        from .study.tasks import send_study

        self._settle_timeout(timeout)
        is_path = isinstance(images, str | os.PathLike)
        files = await asyncio.to_thread(StudyFiles, images) if is_path else StudyFiles(images)
        settings = self._settle_study(
            files, model=model, version=version, timeout=timeout, request_id=request_id, on_file=on_file
        )
        retry: Retry | None = None
        while True:
            attempt = settings.start()
            response: Any = None
            failure: StrokeClientError | None = None
            call = await self._open_study()
            self._restraint.begin()
            try:
                response = await send_study(settings, attempt, call)
            except grpc.RpcError as error:
                failure = await self._explain(error, settings.id)
            except asyncio.CancelledError as error:
                failure = self._explain_cancellation(error)
            finally:
                self._end_try(failure, is_answered=response is not None)
            if failure is None:
                return attempt.read_answer(response)
            if not settings.files.is_repeatable:
                raise failure
            retry = retry or self._start_retry(time.monotonic(), settings.timeout)
            await self._wait_out(retry, failure)

    async def model_info(self, name: str = "", version: str = "", *, timeout: float | None = None) -> ModelInfo:
        """Describes one served model; see ``StrokeClient.model_info``."""
        timeout = self._settle_timeout(timeout)
        check_text(name, version)
        request = stroke_pb2.GetModelRequest(model_name=name, model_version=version)
        return model_from_proto(await self._call(lambda calls: calls.get_model, request, timeout))

    async def list_models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Describes all served models, ordered by name, then version; see ``StrokeClient.list_models``."""
        timeout = self._settle_timeout(timeout)
        response = await self._call(lambda calls: calls.list_models, stroke_pb2.ListModelsRequest(), timeout)
        return [model_from_proto(model) for model in response.models]

    async def check_health(self, *, timeout: float | None = None) -> HealthStatus:
        """Asks the server whether it serves; see ``StrokeClient.check_health``."""
        status: HealthStatus = await self._call(
            lambda calls: calls.check_health, SERVICE, self._settle_timeout(timeout), repeats=False
        )
        return status

    async def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Returns as soon as the server answers and has its models; see ``StrokeClient.wait_until_ready``."""
        readiness = Readiness(self._target, self._settle_timeout(timeout))
        while True:
            outcome: HealthStatus | StrokeClientError
            try:
                outcome = await self.check_health(timeout=readiness.check_timeout)
            except StrokeClientError as error:
                outcome = error
            pause = readiness.judge(outcome)
            if pause is None:
                return
            await asyncio.sleep(pause)

    def _check_context(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()  # grpc would take any loop, and fail at the first call
        except RuntimeError:
            raise RuntimeError(
                "there is no running event loop, to which an AsyncStrokeClient belongs: make it inside a coroutine "
                "(async with AsyncStrokeClient(...) as client), or take StrokeClient"
            ) from None

    def _settle_timeout(self, timeout: float | None) -> float:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # of `predict_many`, whose results a loop is yet to take
            loop = self._loop
        if loop is not self._loop:
            raise RuntimeError("this AsyncStrokeClient was made in another event loop: make one for each loop")
        return super()._settle_timeout(timeout)

    def _connect(self) -> None:
        self._connecting = asyncio.Lock()
        self._is_connected = False
        if not self._config.address.is_looked_up_once:
            super()._connect()
            self._is_connected = True

    async def _finish_connecting(self) -> None:
        """Looks up the names of a list, once."""
        if self._is_connected:
            return
        async with self._connecting:
            if not self._is_connected:
                target = await asyncio.to_thread(find_target, self._config)
                if self._closed:
                    raise error_from_closed(self._target)
                self._owned_channel = open_channel(self._config, target, self._grpc)
                self._use_channel(self._owned_channel)
                self._is_connected = True

    async def _find_metadata(self) -> tuple[tuple[str, str], ...]:
        token = self._config.token
        return await asyncio.to_thread(self._metadata) if callable(token) else self._metadata()

    async def _count_servers(self) -> int:
        return await asyncio.to_thread(self._count_lanes) if self._config.address.is_balanced else 1

    async def _open_stream(self, form: MessageForm) -> Any:
        await self._finish_connecting()
        metadata = await self._find_metadata()
        try:
            return form.open_rpc(self._channel, None, metadata)
        except grpc.aio.UsageError as error:  # how grpc says that the channel is closed
            failure = self._translate(error)
        raise failure

    async def _open_study(self) -> Any:
        from .study.exchange import open_study

        await self._finish_connecting()
        metadata = await self._find_metadata()
        try:
            return open_study(self._channel, None, metadata)
        except grpc.aio.UsageError as error:  # how grpc says that the channel is closed
            failure = self._translate(error)
        raise failure

    def _make_bell(self) -> None:
        self._closing = asyncio.Event()

    async def _call(
        self,
        choose_method: Callable[[UnaryCalls], Callable[..., Awaitable[_Response]]],
        request: object,
        timeout: float,
        request_id: str | None = None,
        *,
        repeats: bool = True,
    ) -> _Response:
        """Makes one unary call within ``timeout`` seconds, repetitions included."""
        started = time.monotonic()
        retry: Retry | None = None
        left = timeout
        while True:
            await self._finish_connecting()
            metadata = await self._find_metadata()
            response: _Response | None = None
            failure: StrokeClientError | None = None
            self._restraint.begin()
            try:
                response = await choose_method(self._calls)(request, timeout=left, metadata=metadata)
            except (grpc.RpcError, grpc.aio.UsageError) as error:  # UsageError: the channel is closed
                failure = await self._explain(error, request_id)
            except asyncio.CancelledError as error:
                failure = self._explain_cancellation(error)
            finally:
                self._end_try(failure, is_answered=response is not None)
            if failure is None:
                assert response is not None
                return response
            if not repeats:
                raise failure
            retry = retry or self._start_retry(started, timeout)
            await self._wait_out(retry, failure)
            left = retry.time_left(time.monotonic())

    async def _explain(self, error: Exception, request_id: str | None) -> StrokeClientError:
        """Returns the error of the client for grpc's, after a look at the server where that may tell more."""
        failure = self._translate_at_once(error, request_id)
        return await asyncio.to_thread(self._look, error, failure) if self._needs_look(error) else failure

    def _explain_cancellation(self, error: asyncio.CancelledError) -> StrokeClientError:
        """Returns the error for a call under which the channel was closed; raises ``error`` when it was the task that
        was cancelled."""
        task = asyncio.current_task()
        if task is None or task.cancelling() or not self._closed:
            raise error
        return self._translate(error)

    async def _wait_out(self, retry: Retry, failure: StrokeClientError) -> None:
        """Waits until a call that failed is to be made again, or raises why it is not."""
        pause = self._choose_pause(retry, failure)
        while True:
            if await self._is_closed_within(pause):
                raise error_from_closed(self._target)
            pause = self._choose_hold(retry)
            if not pause:
                return

    async def _is_closed_within(self, seconds: float) -> bool:
        """Waits, no longer than until the client is closed; returns True when it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()


AsyncStrokeClient.__module__ = __package__  # where users import it from
