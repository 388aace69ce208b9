"""``stroke.v1.StrokeService`` over the transport-free core: proto in, proto out, nothing else."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import grpc

from proto import stroke_pb2, stroke_pb2_grpc
from server.detector import Budget, Detection, Detector
from server.errors import BudgetExceededError, OverloadedError, RequestError, UnavailableError
from server.interceptors import check_request, log_outcome, printable_id, to_status
from server.plan import Plan
from server.runtime import OnnxModel
from server.scheduling import give_way, go_first
from server.stream import RequestReader, StallWatch
from server.workers import Job

DRAIN_POLL_SECONDS = 0.1
"""How often an idle stream looks whether the server is stopping."""

MOST_IMAGES = 32
"""In one message of PredictBatches, as ``proto/stroke.proto`` says."""

Request = TypeVar("Request")
Response = TypeVar("Response")


class StrokeServicer(stroke_pb2_grpc.StrokeServiceServicer):  # type: ignore[misc]  # generated code has no types
    """See ``proto/stroke.proto``."""

    def __init__(
        self,
        detector: Detector,
        *,
        streams: int,
        stream_idle_seconds: float,
        max_wait_seconds: float,
        stopping: threading.Event,
    ) -> None:
        """Args:
        detector: the core.
        streams: open streams at the same time.
        stream_idle_seconds: a stream on which nothing arrives for so long is ended.
        max_wait_seconds: longest wait of one image.
        stopping: once set, streams finish what they have taken and end with UNAVAILABLE.
        """
        self._detector = detector
        self._stream_idle_seconds = stream_idle_seconds
        self._max_wait_seconds = max_wait_seconds
        self._stopping = stopping
        # So many that no worker waits for the network between two images of one stream, even where the threads that
        # read and answer get a processor late because the workers keep all of them busy.
        self._stream_window = 3 * detector.plan.workers
        self._stream_places = threading.BoundedSemaphore(streams)

    def Predict(self, request: stroke_pb2.PredictRequest, context: grpc.ServicerContext) -> stroke_pb2.PredictResponse:
        remaining = context.time_remaining()
        seconds = self._max_wait_seconds if remaining is None else min(remaining, self._max_wait_seconds)
        return self._predict(self._detector.detect, request, Budget(seconds, context.is_active))

    def PredictStream(
        self, requests: Iterator[stroke_pb2.PredictRequest], context: grpc.ServicerContext
    ) -> Iterator[stroke_pb2.PredictStreamResponse]:
        return self._serve_stream(requests, context, lambda request: [request], lambda answers: answers[0])

    def PredictBatches(
        self, requests: Iterator[stroke_pb2.PredictBatchesRequest], context: grpc.ServicerContext
    ) -> Iterator[stroke_pb2.PredictBatchesResponse]:
        return self._serve_stream(
            requests, context, list_requests, lambda answers: stroke_pb2.PredictBatchesResponse(responses=answers)
        )

    def _serve_stream(
        self,
        messages: Iterator[Request],
        context: grpc.ServicerContext,
        unpack: Callable[[Request], Sequence[stroke_pb2.PredictRequest]],
        pack: Callable[[Sequence[stroke_pb2.PredictStreamResponse]], Response],
    ) -> Iterator[Response]:
        """Answers a stream.

        Args:
            messages: as gRPC gives them.
            context: of the call.
            unpack: the images of one message, at least one.
            pack: a message of answers, of which there is at least one.
        """
        if not self._stream_places.acquire(blocking=False):
            raise OverloadedError("TOO_MANY_STREAMS", "As many streams are open as the server accepts.")
        give_way()

        def submit(message: Request) -> list[Job[stroke_pb2.PredictStreamResponse]]:
            check_request(message)
            if self._stopping.is_set():
                raise stopping_server()
            budget = Budget(self._max_wait_seconds, context.is_active)
            return [self._detector.submit(partial(self._answer, request, budget)) for request in unpack(message)]

        reader = RequestReader(messages, self._stream_window, submit)
        watch = StallWatch(self._stream_idle_seconds, context.cancel)
        try:
            last_answer = time.monotonic()
            for answers in reader.read_answers(DRAIN_POLL_SECONDS):
                if answers:
                    with watch.sending():
                        yield pack(answers)
                    last_answer = time.monotonic()
                elif self._stopping.is_set():
                    raise stopping_server()
                elif time.monotonic() - last_answer >= self._stream_idle_seconds:
                    raise BudgetExceededError(
                        "STREAM_IDLE", f"Nothing arrived on the stream for {self._stream_idle_seconds:g} s."
                    )
        finally:
            watch.close()
            reader.close()
            self._stream_places.release()
            go_first()  # the thread serves single calls again

    def GetModel(self, request: stroke_pb2.GetModelRequest, context: grpc.ServicerContext) -> stroke_pb2.Model:
        registry = self._detector.registry
        model = registry.get(request.model_name, request.model_version)
        answer = to_model(model, registry.default, self._detector.plan)
        answer.model_card = model.spec.model_card
        return answer

    def ListModels(
        self, request: stroke_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> stroke_pb2.ListModelsResponse:
        registry, plan = self._detector.registry, self._detector.plan
        return stroke_pb2.ListModelsResponse(models=[to_model(model, registry.default, plan) for model in registry])

    def _predict(
        self, detect: Callable[..., Detection], request: stroke_pb2.PredictRequest, budget: Budget
    ) -> stroke_pb2.PredictResponse:
        if request.id and not printable_id(request.id):
            raise RequestError("ID_INVALID", "id must be at most 128 printable ASCII characters, or empty.")
        detection = detect(
            request.image,
            budget,
            model_name=request.model_name,
            model_version=request.model_version,
            image_sha256=request.image_sha256,
        )
        return to_response(detection, request.id or uuid.uuid4().hex)

    def _answer(self, request: stroke_pb2.PredictRequest, budget: Budget) -> stroke_pb2.PredictStreamResponse:
        """One answer of a stream, with a line in the log: an image that cannot be judged becomes an answer too."""
        try:
            response = self._predict(self._detector.detect_here, request, budget)
        except Exception as error:
            request_id = printable_id(request.id) or uuid.uuid4().hex
            status = to_status(error, request_id)
            log_outcome("stream image", request_id, status, budget.started, is_wanted=budget.is_wanted())
            return stroke_pb2.PredictStreamResponse(
                error=stroke_pb2.PredictError(
                    id=request_id, code=status.code.value[0], reason=status.reason, message=status.message
                )
            )
        log_outcome("stream image", response.id, None, budget.started, is_wanted=budget.is_wanted())
        return stroke_pb2.PredictStreamResponse(response=response)


def list_requests(batch: stroke_pb2.PredictBatchesRequest) -> Sequence[stroke_pb2.PredictRequest]:
    """The images of a message, unless their number is none that the API allows."""
    if not 1 <= len(batch.requests) <= MOST_IMAGES:
        raise RequestError("BATCH_SIZE_INVALID", f"A message must hold 1 to {MOST_IMAGES} images.")
    requests: Sequence[stroke_pb2.PredictRequest] = batch.requests
    return requests


def stopping_server() -> UnavailableError:
    return UnavailableError("SERVER_STOPPING", "The server is stopping: send the rest again elsewhere.")


def to_response(detection: Detection, request_id: str) -> stroke_pb2.PredictResponse:
    """Domain to proto."""
    spec = detection.model.spec
    return stroke_pb2.PredictResponse(
        id=request_id,
        label=detection.label,
        confidence=detection.confidence,
        scores=[
            stroke_pb2.ClassScore(label=label, probability=probability)
            for label, probability in zip(spec.labels, detection.probabilities, strict=True)
        ],
        threshold=spec.threshold,
        model_name=spec.name,
        model_version=spec.version,
        model_digest=detection.model.digest,
        image_sha256=detection.image_sha256,
        timings=stroke_pb2.Timings(
            decode_ms=detection.decode_ms, queue_ms=detection.queue_ms, inference_ms=detection.inference_ms
        ),
        warnings=[stroke_pb2.Warning(reason=w.reason, message=w.message) for w in detection.warnings],
    )


def to_model(model: OnnxModel, default: OnnxModel, plan: Plan) -> stroke_pb2.Model:
    """Domain to proto, without the model card: that is long, and only ``GetModel`` sends it."""
    spec = model.spec
    return stroke_pb2.Model(
        name=spec.name,
        version=spec.version,
        digest=model.digest,
        is_default=model is default,
        task=spec.task,
        intended_use=spec.intended_use,
        labels=spec.labels,
        positive_label=spec.positive_label,
        threshold=spec.threshold,
        input_height=model.input_format.height,
        input_width=model.input_format.width,
        input_channels=model.input_format.channels,
        metrics=spec.metrics,
        provenance=spec.provenance,
        precision=model.precision,
        runtime=model.runtime,
        runtime_version=model.runtime_version,
        threads=model.options.threads,
        busy_threads=model.options.busy_threads,
        workers=plan.workers,
        profile=plan.profile,
    )
