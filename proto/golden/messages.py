"""Golden messages: ``python -m proto.golden`` writes them, each as ``NAME.bin`` (its bytes) and ``NAME.json``.

Another language tests its stubs with them and needs no server: see docs/integrate.md. They are examples of the API,
not of a model, so a new model changes nothing here. Every number in them is exact in binary: a reader may compare with
``==``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import Message

from proto import stroke_pb2

FOLDER = Path(__file__).resolve().parent
IMAGE_FILE = "image.png"
"""A PNG of 32 x 32 pixels, 8-bit grey, all of level 160: the smallest side that a server takes."""

REQUEST_ID = "golden-1"
MODEL_DIGEST = hashlib.sha256(b"the example model").hexdigest()
"""Stands for the digest of a model file; there is no such file."""


def build_messages() -> dict[str, Message]:
    """File name without its ending → message."""
    image = (FOLDER / IMAGE_FILE).read_bytes()
    digest = hashlib.sha256(image).hexdigest()
    warnings = [
        stroke_pb2.Warning(
            reason="IMAGE_UPSCALED",
            message="The image is 32 x 32 pixels and was enlarged for the model, which adds no detail.",
        ),
        stroke_pb2.Warning(reason="IMAGE_BLANK", message="The image is blank: every pixel has the same value."),
    ]
    analysed = stroke_pb2.PredictResponse(
        id=REQUEST_ID,
        label="stroke",
        confidence=0.75,
        scores=[
            stroke_pb2.ClassScore(label="normal", probability=0.25),
            stroke_pb2.ClassScore(label="stroke", probability=0.75),
        ],
        threshold=0.125,
        model_name="example",
        model_version="1",
        model_digest=MODEL_DIGEST,
        image_sha256=digest,
        timings=stroke_pb2.Timings(decode_ms=1.5, queue_ms=0.25, inference_ms=12.0),
        warnings=warnings,
        positive_label="stroke",
        positive_probability=0.75,
        status=stroke_pb2.PredictResponse.ANALYSED,
        channel="stable",
        positive_labels=["stroke"],
    )
    not_analysed = stroke_pb2.PredictResponse()
    not_analysed.CopyFrom(analysed)
    for name in ("label", "confidence"):
        not_analysed.ClearField(name)
    not_analysed.status = stroke_pb2.PredictResponse.NOT_ANALYSED
    not_analysed.reasons.add(reason="IMAGE_BLANK", message="The image is blank: it shows nothing that could be judged.")
    three_classes = stroke_pb2.PredictResponse()
    three_classes.CopyFrom(analysed)
    three_classes.label = three_classes.positive_label = "haemorrhagic"
    three_classes.confidence = 0.5
    for name in ("scores", "positive_labels"):
        three_classes.ClearField(name)
    for label, probability in (("normal", 0.25), ("haemorrhagic", 0.5), ("ischaemic", 0.25)):
        three_classes.scores.add(label=label, probability=probability)
    three_classes.positive_labels.extend(["haemorrhagic", "ischaemic"])
    three_classes.positive_probability = 0.75
    return {
        "predict_request": stroke_pb2.PredictRequest(
            image=image, model_name="example", model_version="1", image_sha256=digest, id=REQUEST_ID
        ),
        "predict_response": analysed,
        "not_analysed": not_analysed,
        "three_classes": three_classes,
        "stream_error": stroke_pb2.PredictStreamResponse(
            error=stroke_pb2.PredictError(
                id="golden-2",
                code=3,
                reason="IMAGE_UNDECODABLE",
                message="The file is in no known image format. Only PNG and JPEG are accepted.",
            )
        ),
    }


def write_files(folder: Path = FOLDER) -> int:
    """Writes all messages into ``folder`` and returns 0, the exit code."""
    for name, message in build_messages().items():
        (folder / f"{name}.bin").write_bytes(message.SerializeToString(deterministic=True))
        text = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=2)
        (folder / f"{name}.json").write_text(text + "\n", "utf-8")
    return 0
