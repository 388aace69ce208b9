"""Golden messages, with which other languages test themselves: what the stubs make, and what a real server answers."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from PIL import Image

from proto import stroke_pb2
from proto.golden.messages import FOLDER, IMAGE_FILE, build_messages, write_files
from server.models.contract import ModelSpec
from tests.fakes import ServerProcess, build_tiny_model, run_server, write_model

SPEC = ModelSpec("example", "1", ("normal", "stroke"), ("stroke",), 0.125, checks="none")
CHECKED = replace(SPEC, version="2", checks="head-ct")
KINDS = replace(
    SPEC,
    version="3",
    labels=("normal", "haemorrhagic", "ischaemic"),
    positive_labels=("haemorrhagic", "ischaemic"),
)
GAIN = math.log(3) / 32
"""sigmoid(GAIN * (160 - 128)) = 3/4: the tiny model answers the golden image as the golden response says."""

GAIN_OF_THREE = math.log(2) / 32
"""The same of the response with three classes: one of them is twice as probable as each of the others."""

MESSAGES = build_messages()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose model is the one that the golden messages speak of."""
    models = tmp_path_factory.mktemp("models")
    for spec in (SPEC, CHECKED, KINDS):
        gain = GAIN_OF_THREE if spec is KINDS else GAIN
        write_model(models, spec, build_tiny_model(spec, gain=gain, gain_of_third=0.0))
    with run_server(models, "--model", "example/1,example/2,example/3") as server:
        yield server


def read(name: str, message: Message) -> Message:
    """Parses the committed bytes of one golden message."""
    return type(message).FromString((FOLDER / f"{name}.bin").read_bytes())


def test_committed_files_are_those_of_the_stubs(tmp_path: Path) -> None:
    """``python -m proto.golden`` would change nothing: neither the stubs nor the messages have."""
    write_files(tmp_path)

    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    committed = {file.name: file.read_bytes() for file in FOLDER.glob("*") if file.suffix in (".bin", ".json")}
    assert written == committed


@pytest.mark.parametrize(("name", "message"), MESSAGES.items())
def test_bytes_and_json_are_the_same_message(name: str, message: Message) -> None:
    """Whichever of the two a language reads, it gets these fields."""
    parsed = json_format.Parse((FOLDER / f"{name}.json").read_text("utf-8"), type(message)())

    assert read(name, message) == message
    assert parsed == message


def test_golden_image_is_what_it_is_said_to_be() -> None:
    """32 x 32 pixels, grey level 160, and small."""
    data = (FOLDER / IMAGE_FILE).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (32, 32))
        assert image.getextrema() == (160, 160)
    assert len(data) < 200


@pytest.mark.parametrize(
    ("name", "version"), [("predict_response", "1"), ("not_analysed", "2"), ("three_classes", "3")]
)
def test_server_answers_the_golden_request_with_the_golden_response(
    name: str, version: str, example: ServerProcess
) -> None:
    """Apart from times, the digest of the model's file, and sentences for people."""
    golden = read(name, stroke_pb2.PredictResponse())
    golden.model_version = version
    golden.channel = "stable" if version == "1" else ""  # the first version that the server was given is the stable one
    request = read("predict_request", stroke_pb2.PredictRequest())
    request.model_version = version

    with example.stub() as stub:
        answer = stub.Predict(request, timeout=10)

    assert all(warning.message for warning in answer.warnings)
    positive = [score.probability for score in answer.scores if score.label in answer.positive_labels]
    assert answer.positive_probability == pytest.approx(sum(positive), abs=1e-7)
    assert answer.confidence == pytest.approx(golden.confidence, abs=1e-6)
    for score, expected in zip(answer.scores, golden.scores, strict=True):
        assert score.probability == pytest.approx(expected.probability, abs=1e-6)
    assert strip(answer) == strip(golden)


def strip(response: stroke_pb2.PredictResponse) -> stroke_pb2.PredictResponse:
    """The response without what differs between two runs or two processors."""
    kept = stroke_pb2.PredictResponse()
    kept.CopyFrom(response)
    for name in ("timings", "model_digest", "confidence", "positive_probability"):
        kept.ClearField(name)
    for score in kept.scores:
        score.ClearField("probability")
    for said in (*kept.warnings, *kept.reasons):
        said.ClearField("message")
    return kept


def test_server_refuses_on_a_stream_as_the_golden_error_says(example: ServerProcess) -> None:
    """The same code, reason and id for bytes that are no image."""
    golden = read("stream_error", stroke_pb2.PredictStreamResponse()).error
    request = stroke_pb2.PredictRequest(id=golden.id, image=b"not an image")

    with example.stub() as stub:
        (answer,) = stub.PredictStream(iter([request]), timeout=10)

    assert (answer.error.id, answer.error.code, answer.error.reason) == (golden.id, golden.code, golden.reason)
    assert answer.error.message
