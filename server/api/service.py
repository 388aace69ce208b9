"""``stroke.v1.StrokeService`` over the transport-free core: proto in, proto out, nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import grpc

from proto import stroke_pb2
from server.api.interceptors import Behaviour, Call, CallBoundary, Status, log_outcome, new_id, printable_id, to_status
from server.api.messages import inflate, parse, split_batch
from server.api.stream import Answer, Stream, StreamPlaces
from server.core.detector import Budget, Detection, Detector
from server.core.plan import Plan
from server.core.workers import Job, waited_too_long
from server.errors import RequestError, UnavailableError
from server.models.runtime import OnnxModel

SERVICE_NAME = stroke_pb2.DESCRIPTOR.services_by_name["StrokeService"].full_name
RETRY_SECONDS = 1.0
"""Hint to those who meet a server that starts or stops."""

Result = TypeVar("Result")


class StrokeServicer:
    """See ``proto/stroke.proto``."""

    def __init__(
        self,
        detector: Detector,
        *,
        streams: int,
        stream_idle_seconds: float,
        max_wait_seconds: float,
        most_bytes: int,
    ) -> None:
        """Args:
        detector: the core.
        streams: open streams at the same time.
        stream_idle_seconds: a stream on which nothing arrives for so long is ended.
        max_wait_seconds: longest wait of one image.
        most_bytes: of a message.
        """
        self._detector = detector
        self._stream_idle_seconds = stream_idle_seconds
        self._max_wait_seconds = max_wait_seconds
        self._most_bytes = most_bytes
        # So many that no worker waits for the network between two images of one stream.
        self._stream_window = 3 * detector.plan.workers
        self._streams = StreamPlaces(streams)

    def make_handlers(self, boundary: CallBoundary) -> grpc.GenericRpcHandler:
        """What gRPC needs to know. All methods take streams of messages: so a message is taken in only when its call
        has a place, and a call whose message does not come costs no thread."""
        unary: dict[str, Behaviour] = {
            "Predict": self._predict_one,
            "GetModel": self._get_model,
            "ListModels": self._list_models,
        }
        streams: dict[str, Behaviour] = {
            "PredictStream": self._predict_stream,
            "PredictBatches": self._predict_batches,
        }
        handlers = {
            name: grpc.stream_unary_rpc_method_handler(boundary.wrap(name, behaviour))
            for name, behaviour in unary.items()
        } | {
            name: grpc.stream_stream_rpc_method_handler(boundary.wrap(name, behaviour))
            for name, behaviour in streams.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    def end_streams(self) -> None:
        """Ends all streams as those of a server that stops."""
        self._streams.end_all(stopping_server())

    async def _predict_one(self, call: Call) -> bytes | Status:
        self._detector.check_room()  # before a byte of it is taken in
        seconds = min(call.seconds_left, self._max_wait_seconds)
        async with call.take_message() as message:
            budget = Budget(seconds, lambda: call.is_wanted, call.started)
            judged, job = start(self._detector, partial(self._judge_one, message.data, budget, call))
            message.data = b""  # the work holds it now
            try:
                async with asyncio.timeout(budget.remaining):
                    return await asyncio.shield(judged)
            except TimeoutError:
                if self._detector.withdraw(job):
                    raise waited_too_long() from None
                return await judged  # what has been started is finished
            except asyncio.CancelledError:
                self._detector.withdraw(job)
                raise

    def _judge_one(self, message: bytes, budget: Budget, call: Call) -> bytes | Status:
        # Errors end here: one that travelled on would take this frame along, and with it the image.
        try:
            request = parse(stroke_pb2.PredictRequest, inflate(message, self._most_bytes))
            answer: bytes = self._predict(request, budget, call.name_itself(request.id)).SerializeToString()
        except Exception as error:
            return to_status(error, call.request_id or call.name_itself(""))
        return answer

    async def _predict_stream(self, call: Call) -> None:
        await self._serve_stream(
            call,
            lambda data: [parse(stroke_pb2.PredictRequest, inflate(data, self._most_bytes))],
            lambda answers: answers[0].SerializeToString(),
        )

    async def _predict_batches(self, call: Call) -> None:
        await self._serve_stream(
            call,
            lambda data: [
                parse(stroke_pb2.PredictRequest, image) for image in split_batch(inflate(data, self._most_bytes))
            ],
            lambda answers: stroke_pb2.PredictBatchesResponse(responses=answers).SerializeToString(),
        )

    async def _serve_stream(
        self,
        call: Call,
        split: Callable[[bytes], Sequence[stroke_pb2.PredictRequest]],
        pack: Callable[[Sequence[Answer]], bytes],
    ) -> None:
        def judge(request: stroke_pb2.PredictRequest) -> asyncio.Future[Answer]:
            work = partial(self._judge_of_stream, request, call, time.monotonic())
            return start(self._detector, work, source=call)[0]

        stream = Stream(
            call,
            window=self._stream_window,
            idle_seconds=self._stream_idle_seconds,
            split=split,
            judge=judge,
            pack=pack,
        )
        await self._streams.run(stream)

    def _judge_of_stream(self, request: stroke_pb2.PredictRequest, call: Call, arrived: float) -> Answer:
        """One answer of a stream, with a line in the log: an image that cannot be judged becomes an answer too."""
        # No time limit of its own: a stream that is slow is slowed down, its images are not refused for that.
        budget = Budget(float("inf"), lambda: call.is_wanted, arrived)
        request_id = printable_id(request.id) or new_id()
        try:
            response = self._predict(request, budget, request_id)
        except Exception as error:
            status = to_status(error, request_id)
            log_outcome("stream image", request_id, status, arrived, is_wanted=call.is_wanted)
            return Answer(
                error=stroke_pb2.PredictError(
                    id=request_id,
                    code=status.code.value[0],
                    reason=status.reason,
                    message=status.message,
                    retry_after_ms=status.retry_after_ms,
                )
            )
        log_outcome("stream image", request_id, None, arrived, is_wanted=call.is_wanted)
        return Answer(response=response)

    def _predict(
        self, request: stroke_pb2.PredictRequest, budget: Budget, request_id: str
    ) -> stroke_pb2.PredictResponse:
        if request.id and not printable_id(request.id):
            raise RequestError("ID_INVALID", "id must be at most 128 printable ASCII characters, or empty.")
        detection = self._detector.detect_here(
            request.image,
            budget,
            model_name=request.model_name,
            model_version=request.model_version,
            image_sha256=request.image_sha256,
        )
        return to_response(detection, request_id)

    async def _get_model(self, call: Call) -> bytes:
        async with call.take_message() as message:
            request = parse(stroke_pb2.GetModelRequest, inflate(message.data, self._most_bytes))
        registry = self._detector.registry
        model = registry.get(request.model_name, request.model_version)
        answer = to_model(model, registry.default, self._detector.plan)
        answer.model_card = model.spec.model_card
        encoded: bytes = answer.SerializeToString()
        return encoded

    async def _list_models(self, call: Call) -> bytes:
        async with call.take_message() as message:
            parse(stroke_pb2.ListModelsRequest, inflate(message.data, self._most_bytes))
        registry, plan = self._detector.registry, self._detector.plan
        models = [to_model(model, registry.default, plan) for model in registry]
        encoded: bytes = stroke_pb2.ListModelsResponse(models=models).SerializeToString()
        return encoded


def start(
    detector: Detector, work: Callable[[], Result], *, source: Call | None = None
) -> tuple[asyncio.Future[Result], Job[Result]]:
    """Lets a worker do ``work``. Returns what it will have come to, and the job. Raises as ``Detector.submit``."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(job: Job[Result]) -> None:
        try:
            result = job.take_result()
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
                future.exception()  # asyncio need not report it, if nobody waits any more
        else:
            if not future.done():
                future.set_result(result)

    def call_back(job: Job[Result]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it all who waited
            loop.call_soon_threadsafe(settle, job)

    return future, detector.submit(work, call_back, source=source)


def stopping_server() -> UnavailableError:
    return UnavailableError(
        "SERVER_STOPPING", "The server is stopping: send the rest again elsewhere.", retry_after=RETRY_SECONDS
    )


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
