"""A small real gRPC server for tests of the client: it records what arrives and misbehaves as it is told."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager, suppress

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from proto import stroke_pb2, stroke_pb2_grpc

SERVICE = "stroke.v1.StrokeService"


class RefusalError(Exception):
    """Raised by ``judge``: this image is refused, with the trailing metadata or PredictError that a server sends.

    ``hint`` is the server's, in milliseconds; None: it gives none.
    """

    def __init__(
        self, code: grpc.StatusCode, reason: str = "", message: str = "", hint: int | str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.hint = code, reason, message, hint


class BrokenStreamError(Exception):
    """Raised by ``judge``: the whole stream ends with this status; None ends it with OK."""

    def __init__(self, code: grpc.StatusCode | None, message: str = "") -> None:
        super().__init__(message)
        self.code, self.message = code, message


def make_response(request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
    """The judgement of a sound server: images whose bytes begin with ``stroke`` are positive."""
    positive = request.image.startswith(b"stroke")
    return stroke_pb2.PredictResponse(
        id=request.id,
        label="stroke" if positive else "normal",
        confidence=0.973 if positive else 0.99,
        scores=[
            stroke_pb2.ClassScore(label="normal", probability=0.027 if positive else 0.99),
            stroke_pb2.ClassScore(label="stroke", probability=0.973 if positive else 0.01),
        ],
        threshold=0.05,
        model_name=request.model_name or "stroke-cnn",
        model_version=request.model_version or "1",
        model_digest="ab" * 32,
        image_sha256=hashlib.sha256(request.image).hexdigest(),
        timings=stroke_pb2.Timings(decode_ms=1.5, queue_ms=0.25, inference_ms=20.125),
    )


def make_refusal_to_judge(request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
    """The answer of a sound server to an image that shows no head."""
    response = make_response(request)
    response.label, response.confidence = "", 0.0
    response.positive_label, response.positive_probability = "stroke", response.scores[1].probability
    response.status = stroke_pb2.PredictResponse.NOT_ANALYSED
    response.reasons.add(reason="NO_HEAD", message="There is no head.")
    return response


def make_study_response(requests: list[stroke_pb2.PredictStudyRequest]) -> stroke_pb2.PredictStudyResponse:
    """The judgement of a sound server: slices that begin with ``stroke`` are positive, ``broken`` ones are refused, and
    ``scout`` ones are of a series that is left out. They are in the order of their ids."""
    response = stroke_pb2.PredictStudyResponse(
        id=requests[0].study_id,
        status=stroke_pb2.PredictResponse.ANALYSED,
        positive_label="stroke",
        threshold=0.35,
        top_k=2,
        model_name=requests[0].model_name or "stroke-cnn",
        model_version=requests[0].model_version or "1",
        model_digest="ab" * 32,
        study_instance_uid="1.2.3",
    )
    for request in sorted(requests, key=lambda one: one.id):
        digest = hashlib.sha256(request.image).hexdigest()
        one = stroke_pb2.StudySlice(id=request.id, image_sha256=digest, status=stroke_pb2.PredictResponse.ANALYSED)
        if request.image.startswith(b"broken"):
            one.error.CopyFrom(stroke_pb2.PredictError(id=request.id, code=3, reason="IMAGE_DAMAGED", message="Bad."))
            response.failures.append(one)
        elif not request.image.startswith(b"scout"):
            one.positive_probability = 0.9 if request.image.startswith(b"stroke") else 0.1
            one.position_mm, one.sop_instance_uid = 5.0 * len(response.slices), f"1.2.3.{len(response.slices)}"
            response.slices.append(one)
    scouts = sum(request.image.startswith(b"scout") for request in requests)
    if scouts:
        response.left_out.add(series_instance_uid="1.2.9", slices=scouts, reason="LOCALIZER", message="A scout.")
    if response.slices:
        first = max(response.slices, key=lambda one: one.positive_probability)
        response.first_look_id, response.first_look_frame = first.id, first.frame
        highest = sorted((one.positive_probability for one in response.slices), reverse=True)[:2]
        response.score = sum(highest) / len(highest)
        response.label = "stroke" if response.score > response.threshold else "normal"
        response.series.slices, response.series.spacing_mm = len(response.slices), 5.0
    else:
        response.status = stroke_pb2.PredictResponse.NOT_ANALYSED
        response.reasons.add(reason="NO_SERIES", message="No series could be judged.")
    return response


MODEL = stroke_pb2.Model(
    name="stroke-cnn",
    version="1",
    digest="ab" * 32,
    is_default=True,
    task="stroke classification of one brain-CT slice",
    intended_use="Research only.",
    labels=["normal", "stroke"],
    positive_label="stroke",
    threshold=0.05,
    input_height=256,
    input_width=256,
    input_channels=3,
    precision="int8",
    runtime="onnxruntime",
    runtime_version="1.32.0",
    threads=2,
    busy_threads=1,
    workers=2,
    profile="balanced",
    metrics={"sensitivity": 0.8, "auc": 0.9},
    provenance={"data": "synthetic"},
    model_card="# Model card\n",
    windows=[stroke_pb2.Window(level=40, width=80)],
    study_top_k=2,
    study_threshold=0.35,
    outlier_threshold=12.5,
)


OVERLAY = b"\x89PNG\r\n\x1a\n and so on"
"""What a sound server shows of an image."""


class RecordingServicer(stroke_pb2_grpc.StrokeServiceServicer):
    """Answers with ``judge``, which a test replaces to refuse, break or hang."""

    def __init__(self) -> None:
        self.judge: Callable[[stroke_pb2.PredictRequest], stroke_pb2.PredictResponse] = make_response
        self.judge_study: Callable[[list[stroke_pb2.PredictStudyRequest]], stroke_pb2.PredictStudyResponse] = (
            make_study_response
        )
        self.take_slice: Callable[[stroke_pb2.PredictStudyRequest], object] = lambda request: None
        """Called with each slice of a study as it comes; a test replaces it to refuse or hang."""
        self.slices: list[stroke_pb2.PredictStudyRequest] = []
        self.released = threading.Event()
        self.requests: list[stroke_pb2.PredictRequest] = []
        self.time_remaining: list[float] = []
        self.metadata: list[dict[str, str]] = []
        self.batch_sizes: list[list[int]] = []
        """Images of each message of each PredictBatches call."""
        self.ended_streams: list[str] = []
        self.hold_answers = False
        """Answers wait until no further request comes for a moment."""
        self.most_unanswered = 0
        self.keeps_requests = True
        self.cells = 6
        """Of a heatmap that says it has six."""

    @property
    def images(self) -> list[bytes]:
        return [request.image for request in self.requests]

    def hang(self, request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
        """A ``judge`` that does not answer before the test ends."""
        self.released.wait(20)
        return make_response(request)

    def raise_once(self, image: bytes, error: Exception) -> None:
        """Makes the judge raise ``error`` when it sees ``image`` for the first time."""
        pending = [error]

        def judge(request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
            if request.image == image and pending:
                raise pending.pop()
            return make_response(request)

        self.judge = judge

    def Predict(self, request, context):  # noqa: N802
        self.requests.append(request)
        self.time_remaining.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        return self._answer(request, context)

    def Explain(self, request, context):  # noqa: N802
        """Two rows of three cells; nothing of an image that was not analysed."""
        prediction = self.Predict(request, context)
        if prediction.status == stroke_pb2.PredictResponse.NOT_ANALYSED:
            return stroke_pb2.ExplainResponse(prediction=prediction)
        return stroke_pb2.ExplainResponse(
            prediction=prediction,
            overlay_png=OVERLAY,
            heatmap=[0, 1, 2, 3, 4, 5][: self.cells],
            heatmap_height=2,
            heatmap_width=3,
            heatmap_left=-8,
            heatmap_top=16,
            heatmap_right=496,
            heatmap_bottom=480,
        )

    def PredictStream(self, requests, context):  # noqa: N802
        ending = "cancelled"
        self.metadata.append(dict(context.invocation_metadata()))
        try:
            for request in self._hold(requests) if self.hold_answers else requests:
                if self.keeps_requests:
                    self.requests.append(request)
                try:
                    yield stroke_pb2.PredictStreamResponse(response=self.judge(request))
                except RefusalError as refusal:
                    error = stroke_pb2.PredictError(
                        id=request.id,
                        code=refusal.code.value[0],
                        reason=refusal.reason,
                        message=refusal.message,
                        retry_after_ms=int(refusal.hint or 0),
                    )
                    yield stroke_pb2.PredictStreamResponse(error=error)
                except BrokenStreamError as end:
                    ending = "broken"
                    if end.code is None:
                        return
                    context.abort(end.code, end.message)
            if context.is_active():
                ending = "half-closed"
        finally:
            self.ended_streams.append(ending)

    def PredictBatches(self, requests, context):  # noqa: N802
        """As ``PredictStream``, with an answer to a message, so that everything can be told of each image."""
        self.batch_sizes.append([])

        def unpack():
            for batch in requests:
                self.batch_sizes[-1].append(len(batch.requests))
                yield from batch.requests

        for answer in self.PredictStream(unpack(), context):
            yield stroke_pb2.PredictBatchesResponse(responses=[answer])

    def PredictStudy(self, requests, context):  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        taken = []
        try:
            for request in requests:
                taken.append(request)
                if self.keeps_requests:
                    self.slices.append(request)
                self.take_slice(request)
            return self.judge_study(taken)
        except RefusalError as refusal:
            context.set_trailing_metadata((("stroke-reason", refusal.reason),))
            context.abort(refusal.code, refusal.message)

    def GetModel(self, request, context):  # noqa: N802
        if request.model_name not in ("", MODEL.name):
            context.set_trailing_metadata((("stroke-reason", "MODEL_NOT_FOUND"),))
            context.abort(grpc.StatusCode.NOT_FOUND, f"There is no model '{request.model_name}'.")
        return MODEL

    def ListModels(self, request, context):  # noqa: N802
        listed = stroke_pb2.Model()
        listed.CopyFrom(MODEL)
        listed.ClearField("model_card")
        return stroke_pb2.ListModelsResponse(models=[listed])

    def _hold(self, requests):
        """Yields the requests, but each only when the window of the caller is exhausted: nothing came for 10 ms."""
        arrived: queue.Queue = queue.Queue()

        def read():
            with suppress(grpc.RpcError):  # the call ended
                for request in requests:
                    arrived.put(request)
            arrived.put(None)

        threading.Thread(target=read, name="fake-server-reader").start()
        waiting = deque([arrived.get()])
        while waiting:
            with suppress(queue.Empty):
                while waiting[-1] is not None:
                    waiting.append(arrived.get(timeout=0.01))
            self.most_unanswered = max(self.most_unanswered, sum(request is not None for request in waiting))
            request = waiting.popleft()
            if request is None:
                return
            yield request
            if not waiting:
                waiting.append(arrived.get())

    def _answer(self, request, context):
        try:
            return self.judge(request)
        except RefusalError as refusal:
            trailing = {"stroke-reason": refusal.reason, "grpc-retry-pushback-ms": str(refusal.hint)}
            if refusal.hint is None:
                del trailing["grpc-retry-pushback-ms"]
            context.set_trailing_metadata(tuple(item for item in trailing.items() if item[1]))
            context.abort(refusal.code, refusal.message)


class FakeServer:
    """A running server with its servicer and its health service."""

    def __init__(
        self,
        servicer: RecordingServicer,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        address: str = "",
        options: Sequence[tuple[str, object]] = (),
    ) -> None:
        self.servicer = servicer
        self.health = health.HealthServicer()
        self.health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=8, thread_name_prefix="fake-server"),
            options=[("grpc.so_reuseport", 0), *options],
        )
        stroke_pb2_grpc.add_StrokeServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        where = address or f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(where)
        else:
            self.port = self._server.add_secure_port(where, credentials)
        self.target = address or f"127.0.0.1:{self.port}"
        self._server.start()

    def set_serving(self, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        self.health.set(SERVICE, states.SERVING if serving else states.NOT_SERVING)

    def stop(self) -> None:
        self.servicer.released.set()
        self._server.stop(None).wait()


@contextmanager
def serve(
    servicer: RecordingServicer | None = None,
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
    address: str = "",
    options: Sequence[tuple[str, object]] = (),
) -> Iterator[FakeServer]:
    """Runs a fake server as long as the block lasts: on ``address``, or on ``port`` of this machine, or a free one.

    With ``credentials`` it speaks TLS; ``options`` are gRPC's.
    """
    server = FakeServer(servicer or RecordingServicer(), port, credentials, address, options)
    try:
        yield server
    finally:
        server.stop()


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Polls until ``condition`` holds, and fails the test when it does not: patiently, as machines may be busy."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not reached in time"
        time.sleep(0.01)
