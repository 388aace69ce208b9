"""``StrokeClient``: the calls of the service as blocking methods."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from ._channel import SERVICE
from ._config import DEFAULT_IN_FLIGHT
from ._core import ClientCore, Readiness, model_from_proto
from ._errors import StrokeClientError, error_from_closed
from ._exchange import ImageRequest, check_text, load_request, read_answer, read_explanation
from ._proto import stroke_pb2
from ._types import Explanation, HealthStatus, ImageInput, ModelInfo, Prediction, PredictionFailure

if TYPE_CHECKING:
    from ._retry import Retry
    from .stream.wire import MessageForm
    from .study.types import StudyInput, StudyPrediction

_Response = TypeVar("_Response")


class StrokeClient(ClientCore):
    """Blocking client; use it in a ``with`` statement. Methods may be called from several threads.

    with StrokeClient("127.0.0.1:50051") as client:
        prediction = client.predict("scan.png")
        print(prediction.label, prediction.confidence)
    """

    def __enter__(self) -> StrokeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and what runs on it. May be called twice."""
        self._closed = True
        self._closing.set()
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
        frame: int = 0,
    ) -> Prediction:
        """Classifies one image.

        Args:
            image: a path, the bytes of a PNG, JPEG or DICOM file, or a file opened in binary mode, which is read to its
                end and left open.
            model: name of the model that judges; empty: the server's default.
            version: version of that model; empty: the server's default.
            timeout: seconds that the call may take; None: the client's.
            request_id: identifies the request in the server's log, at most 128 printable ASCII characters, nothing
                that names a patient; None: a random one.
            frame: which frame of a multi-frame DICOM file, from 1; 0: the only one.

        Raises:
            InvalidImageError: the image cannot be read or judged.
            ModelNotFoundError: no such model or version is served.
            IntegrityError: other bytes were judged than those of the image.
            StrokeClientError: any other failure, such as no server or no answer in time.
            ValueError: ``timeout`` is not a positive, finite number, or ``frame`` is below 0.
            TypeError: ``image`` is nothing that can be read.
        """
        timeout = self._settle_timeout(timeout)
        limit = self._config.max_image_bytes
        request = load_request(image, limit, model=model, version=version, request_id=request_id, frame=frame)
        return read_answer(self._call(self._calls.predict, request.to_proto(), timeout, request.id), request)

    def explain(
        self,
        image: ImageInput,
        *,
        model: str = "",
        version: str = "",
        timeout: float | None = None,
        request_id: str | None = None,
        frame: int = 0,
    ) -> Explanation:
        """Classifies one image and shows where in it the evidence for the positive labels lies, on a server that was
        started with ``--explain``. For research, not for localisation. Arguments and errors are those of ``predict``.

        Raises:
            ServerError: the server explains nothing (EXPLAIN_DISABLED), or not this model (MODEL_CANNOT_EXPLAIN).
        """
        timeout = self._settle_timeout(timeout)
        limit = self._config.max_image_bytes
        request = load_request(image, limit, model=model, version=version, request_id=request_id, frame=frame)
        return read_explanation(self._call(self._calls.explain, request.to_proto(), timeout, request.id), request)

    def predict_many(
        self,
        images: Iterable[ImageInput],
        *,
        model: str = "",
        version: str = "",
        timeout: float | None = None,
        in_flight: int = DEFAULT_IN_FLIGHT,
        ordered: bool = True,
        frame: int = 0,
    ) -> Generator[Prediction | PredictionFailure, None, None]:
        """Classifies many images on a stream, or on one to each server where the address names several.

            for result in client.predict_many(Path("series").glob("*.png")):
                print(result.source, result.error if isinstance(result, PredictionFailure) else result.label)

        ``images`` is read in the caller's thread, at most ``in_flight`` images ahead of the results, so it may be
        endless. An image that cannot be read or judged gives a ``PredictionFailure`` and the run goes on. When a
        connection breaks, the images without an answer are sent again. Close the generator to stop early; the end of
        a ``for`` loop does so.

        Args:
            images: what ``predict`` takes, any number of them.
            model: name of the model that judges; empty: the server's default.
            version: version of that model; empty: the server's default.
            timeout: seconds that each image may take once the server has answered the ones before; None: the client's.
            in_flight: number of images that may be held and be without a result, >= 1.
            ordered: True: results in the order of the images; False: as they come, so that no slow image holds up
                the others. ``index`` tells whose result it is.
            frame: which frame of multi-frame DICOM files, from 1, of each the same; 0: the only one.

        Raises:
            StrokeClientError: the run cannot go on: no server, no answers any more, no access.
            ValueError: ``timeout``, ``in_flight`` or ``frame`` is out of range.
            TypeError: ``images`` is one image, or one of them is nothing that can be read.
        """
        from .stream.threads import stream_results  # a single image does without

        settings = self._settle_stream(
            images, model=model, version=version, timeout=timeout, in_flight=in_flight, ordered=ordered, frame=frame
        )
        return stream_results(settings, iter(images), self._count_lanes, self._open_stream, self._translate)

    def predict_study(
        self,
        images: StudyInput,
        *,
        model: str = "",
        version: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
        on_file: Callable[[int], None] | None = None,
    ) -> StudyPrediction:
        """Judges the slices of one study: one answer, with the slice to look at first and every series left out.

            study = client.predict_study("study/")
            print(study.label, study.score, study.first_look)

        Files are read while others are sent, at most four ahead, so a study may be larger than memory. They travel
        under numbers, never under their names. A file that cannot be read is one of the study's ``failures``. The order
        of DICOM files does not matter; PNG and JPEG files are taken as one series in their order.

        Args:
            images: a folder, with all below it (PNG, JPEG and DICOM files); one file, perhaps with many frames; any
                iterable of what ``predict`` takes; or a mapping from ids of your own (at most 128 printable ASCII
                characters, nothing that names a patient) to that. Paths are sent in natural order (``slice2`` before
                ``slice10``), whatever else as it comes.
            model: name of the model that judges; empty: the server's default.
            version: version of that model; empty: the server's default.
            request_id: identifies the study in the server's log, as in ``predict``.
            timeout: seconds within which the server has to take the next file, and after the last one to answer: a
                large study takes as long as it needs, as long as it gets on. None: the client's. A call that fails in
                a way that passes is made again within as many seconds, when all files can be read again: paths, and
                bytes in a list, but no generator of bytes and no open file.
            on_file: called with the number of files that are through, from 1 again when the call is made again.

        Raises:
            InvalidImageError: no file can be read, or the study has more than the server takes (STUDY_TOO_LARGE, an
                ``ImageTooLargeError``).
            InvalidRequestError: there is no file (STUDY_EMPTY).
            ModelNotFoundError: no such model or version is served.
            IntegrityError: other bytes were judged than those of the files.
            StrokeClientError: any other failure, such as no server, or one that does not get on.
            ValueError: ``timeout`` is not a positive, finite number.
            TypeError: one of the images is nothing that can be read.
        """
        from .study.files import StudyFiles  # a single image does without
        from .study.threads import send_study

        settings = self._settle_study(
            StudyFiles(images), model=model, version=version, timeout=timeout, request_id=request_id, on_file=on_file
        )

        retry: Retry | None = None
        while True:
            attempt = settings.start()
            response: Any = None
            failure: StrokeClientError | None = None
            self._restraint.begin()
            try:
                response = send_study(settings, attempt, self._open_study)
            except (grpc.RpcError, grpc.FutureCancelledError) as error:
                failure = self._translate(error, settings.id)
            finally:
                self._end_try(failure, is_answered=response is not None)
            if failure is None:
                return attempt.read_answer(response)
            if not settings.files.is_repeatable:
                raise failure
            retry = retry or self._start_retry(time.monotonic(), settings.timeout)
            self._wait_out(retry, failure)

    def model_info(self, name: str = "", version: str = "", *, timeout: float | None = None) -> ModelInfo:
        """Describes one served model; empty arguments mean the server's defaults.

        Raises:
            ModelNotFoundError: no such model or version is served.
            StrokeClientError: any other failure.
        """
        timeout = self._settle_timeout(timeout)
        check_text(name, version)
        request = stroke_pb2.GetModelRequest(model_name=name, model_version=version)
        return model_from_proto(self._call(self._calls.get_model, request, timeout))

    def list_models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Describes all served models, ordered by name, then version.

        Raises:
            StrokeClientError: the server could not be asked.
        """
        timeout = self._settle_timeout(timeout)
        response = self._call(self._calls.list_models, stroke_pb2.ListModelsRequest(), timeout)
        return [model_from_proto(model) for model in response.models]

    def check_health(self, *, timeout: float | None = None) -> HealthStatus:
        """Asks the server whether it serves (grpc.health.v1), once: how things are now is the answer.

        Raises:
            StrokeClientError: the server could not be asked.
        """
        status: HealthStatus = self._call(
            self._calls.check_health, SERVICE, self._settle_timeout(timeout), repeats=False
        )
        return status

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Returns as soon as the server has loaded its models and answers.

        Args:
            timeout: seconds to wait at most; > 0.

        Raises:
            ServerUnavailableError: no server answered, or it was not ready in time (SERVER_NOT_READY).
            StrokeClientError: the server answered something that waiting does not change.
        """
        readiness = Readiness(self._target, self._settle_timeout(timeout))
        while True:
            outcome: HealthStatus | StrokeClientError
            try:
                outcome = self.check_health(timeout=readiness.check_timeout)
            except StrokeClientError as error:
                outcome = error
            pause = readiness.judge(outcome)
            if pause is None:
                return
            time.sleep(pause)

    def _open_stream(self, form: MessageForm, messages: Iterator[list[ImageRequest]]) -> Any:
        metadata = self._metadata()
        try:
            return form.open_rpc(self._channel, messages, metadata)
        except ValueError as error:  # how grpc says that the channel is closed
            failure = self._translate(error)
        raise failure

    def _open_study(self, messages: Iterator[bytes]) -> Any:
        from .study.exchange import open_study

        metadata = self._metadata()
        try:
            return open_study(self._channel, messages, metadata)
        except ValueError as error:  # how grpc says that the channel is closed
            failure = self._translate(error)
        raise failure

    def _make_bell(self) -> None:
        self._closing = threading.Event()

    def _call(
        self,
        method: Callable[..., _Response],
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
            metadata = self._metadata()
            response: _Response | None = None
            failure: StrokeClientError | None = None
            self._restraint.begin()
            try:
                response = method(request, timeout=left, metadata=metadata)
            except (grpc.RpcError, ValueError) as error:  # ValueError: the channel is closed
                failure = self._translate(error, request_id)
            finally:
                self._end_try(failure, is_answered=response is not None)
            if failure is None:
                assert response is not None
                return response
            if not repeats:
                raise failure
            retry = retry or self._start_retry(started, timeout)
            self._wait_out(retry, failure)
            left = retry.time_left(time.monotonic())

    def _wait_out(self, retry: Retry, failure: StrokeClientError) -> None:
        """Waits until a call that failed is to be made again.

        Raises:
            StrokeClientError: it is not to be made again.
        """
        pause = self._choose_pause(retry, failure)
        while True:
            if self._closing.wait(pause):
                raise error_from_closed(self._target)
            pause = self._choose_hold(retry)
            if not pause:
                return


StrokeClient.__module__ = __package__  # where users import it from
