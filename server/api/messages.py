"""What messages of stroke.v1 hold, and back from our results to messages."""

from __future__ import annotations

from typing import TypeAlias

import grpc

from proto import __version__, stroke_pb2
from server.admission.judge import MOST_IMAGES
from server.admission.status import Status
from server.api.rpc.call import parse
from server.api.rpc.stream import StreamForm
from server.core.detector import Detection
from server.core.plan import Plan
from server.errors import RequestError, malformed_request
from server.models.runtime import OnnxModel

Answer: TypeAlias = stroke_pb2.PredictStreamResponse
"""To one image of a stream."""

MOST_FIELDS = 4 * MOST_IMAGES
"""In such a message, those included that this server does not know. An empty one takes 2 bytes to send, 80 to hold."""

REQUESTS_FIELD = 1
VARINT, LENGTH_DELIMITED = 0, 2
FIXED_BYTES = {1: 8, 5: 4}
"""Wire types of protobuf's encoding, and the bytes of those that have a fixed number."""


def split_batch(data: bytes) -> list[memoryview]:
    """Returns the encoded images of a ``PredictBatchesRequest``, without copying them.

    Raises:
        RequestError: reasons REQUEST_MALFORMED, and BATCH_SIZE_INVALID unless there are 1 to ``MOST_IMAGES``.
    """
    images: list[memoryview] = []
    view = memoryview(data)
    position = fields = 0
    while position < len(data) and fields < MOST_FIELDS:
        fields += 1
        tag, position = read_varint(data, position)
        if tag & 7 == VARINT:
            _, position = read_varint(data, position)
            continue
        length = FIXED_BYTES.get(tag & 7, 0)
        if tag & 7 == LENGTH_DELIMITED:
            length, position = read_varint(data, position)
        if (not length and tag & 7 != LENGTH_DELIMITED) or length > len(data) - position:
            raise malformed_request()
        if tag == REQUESTS_FIELD << 3 | LENGTH_DELIMITED:
            images.append(view[position : position + length])
        position += length
    if not 1 <= len(images) <= MOST_IMAGES or position < len(data):
        raise RequestError("BATCH_SIZE_INVALID", f"A message must hold 1 to {MOST_IMAGES} images.")
    return images


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Returns a number and the position behind it (protobuf's encoding: base 128, 7 bits a byte, at most 64 bits)."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
    raise malformed_request()


def has_response(answer: Answer) -> bool:
    """Whether the image was judged."""
    return bool(answer.HasField("response"))


SINGLES = StreamForm(
    lambda data: [parse(stroke_pb2.PredictRequest, data)],
    lambda answers: answers[0].SerializeToString(),
    has_response,
)
"""Of PredictStream."""

BATCHES = StreamForm(
    lambda data: [parse(stroke_pb2.PredictRequest, image) for image in split_batch(data)],
    lambda answers: stroke_pb2.PredictBatchesResponse(responses=answers).SerializeToString(),
    has_response,
)
"""Of PredictBatches."""


def to_answer(outcome: Detection | Status, request_id: str) -> Answer:
    """What came of one image of a stream."""
    if isinstance(outcome, Detection):
        return Answer(response=to_response(outcome, request_id))
    return Answer(
        error=stroke_pb2.PredictError(
            id=request_id,
            code=grpc.StatusCode[outcome.code].value[0],
            reason=outcome.reason,
            message=outcome.message,
            retry_after_ms=outcome.retry_after_ms,
        )
    )


def encode_response(detection: Detection, request_id: str) -> bytes:
    """The answer to a single image."""
    answer: bytes = to_response(detection, request_id).SerializeToString()
    return answer


def to_response(detection: Detection, request_id: str) -> stroke_pb2.PredictResponse:
    """Domain to proto."""
    spec, status = detection.model.spec, stroke_pb2.PredictResponse
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
        positive_label=detection.positive_label,
        positive_probability=detection.positive_probability,
        status=status.NOT_ANALYSED if detection.reasons else status.ANALYSED,
        reasons=[stroke_pb2.Reason(reason=r.reason, message=r.message) for r in detection.reasons],
        channel=detection.channel,
        outlier_score=detection.outlier_score,
        positive_labels=spec.positive_labels,
    )


def encode_explanation(detection: Detection, request_id: str) -> bytes:
    """The answer to a single image whose judgement was to be explained."""
    response = stroke_pb2.ExplainResponse(prediction=to_response(detection, request_id))
    if (explanation := detection.explanation) is not None:
        response.overlay_png = explanation.overlay_png
        response.heatmap_height, response.heatmap_width = explanation.heatmap.shape
        response.heatmap.extend(explanation.heatmap.ravel().tolist())
        for name, edge in explanation.box._asdict().items():
            setattr(response, f"heatmap_{name}", edge)
    answer: bytes = response.SerializeToString()
    return answer


def to_model(model: OnnxModel, default: OnnxModel, plan: Plan, *, model_card: str = "") -> stroke_pb2.Model:
    """Domain to proto. The model card is not in it unless it is given: it is long, and only ``GetModel`` sends it."""
    spec = model.spec
    return stroke_pb2.Model(
        name=spec.name,
        version=spec.version,
        digest=model.digest,
        is_default=model is default,
        task=spec.task,
        intended_use=spec.intended_use,
        labels=spec.labels,
        positive_label=spec.only_positive_label,
        threshold=spec.threshold,
        input_height=model.input_format.height,
        input_width=model.input_format.width,
        input_channels=model.input_format.channels,
        metrics=spec.metrics,
        provenance=spec.provenance,
        precision=model.options.precision,
        runtime=model.runtime,
        runtime_version=model.runtime_version,
        threads=model.options.threads,
        busy_threads=model.options.busy_threads,
        workers=model.options.workers,
        profile=plan.profile,
        model_card=model_card,
        server_version=__version__,
        windows=[stroke_pb2.Window(level=window.level, width=window.width) for window in spec.windows],
        study_top_k=spec.study_top_k,
        study_threshold=spec.study_threshold,
        outlier_threshold=spec.outlier_threshold,
        indeterminate_margin=spec.indeterminate_margin,
        explains=model.explainer is not None,
        positive_labels=spec.positive_labels,
    )
