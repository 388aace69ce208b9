"""From the bytes of a message to what they say, without trusting them, and back from our results to messages.

What arrives is bounded before protobuf sees it. gRPC hands compressed messages over as they came, because it would
inflate them without a bound.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from proto import __version__, stroke_pb2
from server.core.detector import Detection
from server.core.plan import Plan
from server.errors import RequestError
from server.models.runtime import OnnxModel

Answer: TypeAlias = stroke_pb2.PredictStreamResponse
"""To one image of a stream."""

MOST_IMAGES = 32
"""In one message of PredictBatches, as ``proto/stroke.proto`` says."""

MOST_FIELDS = 4 * MOST_IMAGES
"""In such a message, those included that this server does not know. An empty one takes 2 bytes to send, 80 to hold."""

REQUESTS_FIELD = 1
VARINT, LENGTH_DELIMITED = 0, 2
FIXED_BYTES = {1: 8, 5: 4}
"""Wire types of protobuf's encoding, and the bytes of those that have a fixed number."""


def malformed_request() -> RequestError:
    return RequestError("REQUEST_MALFORMED", "The message is not one of stroke.v1: check the caller's stubs.")


def inflate(data: bytes, most_bytes: int) -> bytes:
    """Returns a message as it was before its sender compressed it by gzip or deflate, the compressions that gRPC has.

    No message of this API begins like one of these: 0x1f is no field, 0x78 a field of a number that it does not use.

    Raises:
        RequestError: reasons REQUEST_MALFORMED, and MESSAGE_TOO_LARGE when more than ``most_bytes`` come out.
    """
    is_gzip = data[:2] == b"\x1f\x8b"
    is_deflate = data[:1] == b"\x78" and len(data) > 1 and int.from_bytes(data[:2], "big") % 31 == 0
    if not (is_gzip or is_deflate):
        return data
    stream = zlib.decompressobj(wbits=47)  # either of the two
    try:
        plain = stream.decompress(data, most_bytes + 1)
    except zlib.error:
        raise malformed_request() from None
    if len(plain) > most_bytes:
        raise RequestError(
            "MESSAGE_TOO_LARGE",
            f"Without compression the message has more than {most_bytes:,} bytes: send less at a time.",
        )
    if not stream.eof:
        raise malformed_request()
    return plain


def parse(kind: Any, data: bytes | memoryview) -> Any:
    """Returns a message of the class ``kind``.

    Raises:
        RequestError: reason REQUEST_MALFORMED.
    """
    try:
        return kind.FromString(data)
    except (DecodeError, ValueError):
        raise malformed_request() from None


@dataclass(frozen=True)
class StreamForm:
    """What the messages of a method for streams hold."""

    split: Callable[[bytes], Sequence[stroke_pb2.PredictRequest]]
    """Returns the requests in a message, at least one. Raises RequestError."""

    pack: Callable[[Sequence[Answer]], bytes]
    """Returns a message of answers, of which there is at least one."""


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


def read_varint(data: bytes, position: int) -> tuple[int, int]:
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


SINGLES = StreamForm(
    lambda data: [parse(stroke_pb2.PredictRequest, data)],
    lambda answers: answers[0].SerializeToString(),
)
"""Of PredictStream."""

BATCHES = StreamForm(
    lambda data: [parse(stroke_pb2.PredictRequest, image) for image in split_batch(data)],
    lambda answers: stroke_pb2.PredictBatchesResponse(responses=answers).SerializeToString(),
)
"""Of PredictBatches."""


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
        positive_label=spec.positive_label,
        positive_probability=detection.probabilities[spec.positive_index],
        status=status.NOT_ANALYSED if detection.reasons else status.ANALYSED,
        reasons=[stroke_pb2.Reason(reason=r.reason, message=r.message) for r in detection.reasons],
    )


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
        positive_label=spec.positive_label,
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
    )
