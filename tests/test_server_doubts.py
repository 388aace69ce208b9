"""Knowing when not to answer: images that are unlike all that the model knows, or too near to its threshold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from proto import stroke_pb2
from server.api.messages import to_response
from server.audit.content import Content
from server.core.decision import find_doubts
from server.core.detector import Budget, Detection, Detector
from server.core.outcomes import Caller, Outcome
from server.core.plan import Plan
from server.errors import ModelFileError
from server.models.contract import OUTLIER_NAME
from server.models.engines.engine import DEFAULT_OPTIONS, EngineOptions
from server.models.golden import GoldenVector
from server.models.manifest import INT8_FILE, MODEL_FILE, Manifest, read_manifest
from server.models.registry import ModelRegistry
from server.models.runtime import OnnxModel, Scores, load_model
from server.oip.outputs import WantedOutput, make_outputs
from server.web.answers import describe_detection
from tests.fakes import (
    SIDE,
    SPEC,
    build_tiny_graph,
    build_tiny_model,
    encode,
    make_slice,
    rewrite_manifest,
    write_model,
)

CAREFUL = replace(SPEC, threshold=0.5, outlier_threshold=150.0, indeterminate_margin=0.1)
"""Its outlier score is the mean grey level; the probability is 0.5 at a level of 128."""

STROKE, NORMAL, BRIGHT, BETWEEN = (encode(make_slice(level)) for level in (140, 60, 200, 130))


def make_detector(folder: Path, *, checks: bool = True) -> Detector:
    write_model(folder, CAREFUL)
    registry = ModelRegistry()
    registry.load(folder, "")
    return Detector(registry, Plan("balanced", DEFAULT_OPTIONS), queue=1, checks=checks)


@pytest.fixture
def detector(tmp_path: Path) -> Detector:
    return make_detector(tmp_path)


@pytest.fixture
def outlier(detector: Detector) -> Detection:
    return detector.detect(BRIGHT, Budget(30))


@pytest.mark.parametrize(
    ("image", "label", "reasons"),
    [
        (STROKE, "stroke", []),
        (NORMAL, "normal", []),
        (BRIGHT, "", ["OUT_OF_DISTRIBUTION"]),
        (BETWEEN, "", ["INDETERMINATE"]),
    ],
)
def test_model_in_doubt_gives_scores_and_no_label(
    image: bytes, label: str, reasons: list[str], detector: Detector
) -> None:
    """The probabilities are there all the same, and the outlier score of every image."""
    detection = detector.detect(image, Budget(30))

    assert (detection.label, [one.reason for one in detection.reasons]) == (label, reasons)
    assert sum(detection.probabilities) == pytest.approx(1)
    assert bool(detection.confidence) == bool(label)
    assert 50 < detection.outlier_score < 210
    assert all(one.message.endswith(".") for one in detection.reasons)


def test_checks_off_gives_every_image_a_label(tmp_path: Path) -> None:
    """Whoever runs the server may want that; the score still tells."""
    detector = make_detector(tmp_path, checks=False)

    assert [detector.detect(image, Budget(30)).label for image in (BRIGHT, BETWEEN)] == ["stroke", "stroke"]
    assert detector.detect(BRIGHT, Budget(30)).outlier_score > CAREFUL.outlier_threshold


@pytest.mark.parametrize(
    ("score", "probability", "reasons"),
    [
        (150.0, 0.9, []),
        (np.nextafter(np.float32(150), np.float32(200)), 0.9, ["OUT_OF_DISTRIBUTION"]),
        (0.0, 0.625, []),
        (0.0, 0.375, []),
        (0.0, 0.59, ["INDETERMINATE"]),
        (0.0, 0.41, ["INDETERMINATE"]),
        (151.0, 0.5, ["OUT_OF_DISTRIBUTION"]),
    ],
)
def test_limits_themselves_are_answered(score: float, probability: float, reasons: list[str]) -> None:
    """A score strictly above its threshold, a probability strictly nearer than the margin; one reason at a time."""
    spec = replace(CAREFUL, indeterminate_margin=0.125)
    said = Scores(np.array([[1 - probability, probability]], np.float32), np.array([score], np.float32))

    assert [one.reason for one in find_doubts(said, spec)] == reasons


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_score_that_is_no_number_is_a_fault_of_the_model(score: float) -> None:
    """It never leaves with OK."""
    said = Scores(np.array([[0.1, 0.9]], np.float32), np.array([score], np.float32))

    with pytest.raises(ArithmeticError):
        find_doubts(said, CAREFUL)


def test_without_limits_nothing_is_in_doubt() -> None:
    """Models from before."""
    said = Scores(np.array([[0.5, 0.5]], np.float32), np.zeros(1, np.float32))

    assert find_doubts(said, replace(SPEC, threshold=0.5)) == ()


def test_grpc_tells(outlier: Detection) -> None:
    """NOT_ANALYSED with scores, reason and outlier score."""
    response = to_response(outlier, "id")

    assert response.status == stroke_pb2.PredictResponse.NOT_ANALYSED
    assert (response.label, [one.reason for one in response.reasons]) == ("", ["OUT_OF_DISTRIBUTION"])
    assert response.outlier_score == outlier.outlier_score > 150
    assert len(response.scores) == 2


def test_http_tells(outlier: Detection) -> None:
    """The same in JSON."""
    answer = describe_detection(outlier, "id")

    assert (answer["class"], answer["status"]) == (None, "NOT_ANALYSED")
    assert answer["outlier_score"] == outlier.outlier_score


def test_inference_protocol_tells(outlier: Detection, detector: Detector) -> None:
    """One number an image."""
    known = detector.detect(NORMAL, Budget(30))
    (tensor,) = make_outputs([outlier, known], [WantedOutput(OUTLIER_NAME)])

    assert (tensor.datatype, tensor.shape) == ("FP32", (2,))
    assert list(tensor.elements) == [np.float32(outlier.outlier_score), np.float32(known.outlier_score)]


def test_audit_tells(outlier: Detection) -> None:
    """Whoever wonders later why there was no label finds the score."""
    outcome = Outcome(
        method="Predict", request_id="1", caller=Caller("peer"), started=0.0, is_image=True, detection=outlier
    )
    fields = Content(salt=None, with_peer=False).describe(outcome, "now")

    assert fields["reasons"] == ["OUT_OF_DISTRIBUTION"]
    assert fields["outlier_score"] == outlier.outlier_score
    json.dumps(fields, allow_nan=False)


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.openvino)])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_both_engines_give_the_score_with_the_answer(runtime: str, precision: str, tmp_path: Path) -> None:
    """In one run, of a batch as well."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
    folder = write_model(tmp_path, CAREFUL, int8=build_tiny_model(CAREFUL, gain=0.06))
    model = load_model(folder, EngineOptions(precision=precision, runtime=runtime))

    said = model.score(np.stack([np.full((SIDE, SIDE, 3), level, np.uint8) for level in (10, 200)]), busy=True)

    assert said.outlier == pytest.approx([10, 200], rel=1e-5)
    assert said.probabilities.shape == (2, 2)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_golden_vectors_cover_the_score(precision: str, tmp_path: Path) -> None:
    """A score that differs on this machine keeps the model from being served, as a probability does."""
    folder = write_model(tmp_path, CAREFUL, int8=build_tiny_model(CAREFUL, gain=0.06))
    load_model(folder, EngineOptions(precision=precision))

    def change(document: dict) -> None:  # type: ignore[type-arg]
        document["golden"][0]["outlier_score"] += 1
        document["files"][INT8_FILE]["outlier_scores"][0] += 1

    rewrite_manifest(folder, change)

    with pytest.raises(ModelFileError) as refusal:
        load_model(folder, EngineOptions(precision=precision))
    assert refusal.value.reason == "MODEL_ANSWERS_WRONG"


def test_manifest_with_scores_survives_a_round_trip(tmp_path: Path) -> None:
    """And one without has no word of them."""
    manifest = read_manifest(write_model(tmp_path / "with", CAREFUL))

    assert Manifest.from_json(manifest.to_json()) == manifest
    assert all(vector.outlier_score > 0 for vector in manifest.list_golden(MODEL_FILE))
    assert "outlier" not in read_manifest(write_model(tmp_path / "without")).to_json()


@pytest.mark.parametrize("value", [-1.0, "1", None, True])
def test_score_in_a_manifest_is_a_number_from_0(value: object) -> None:
    """Anything else is damage."""
    with pytest.raises(ValueError, match=r"number|type"):
        GoldenVector.from_document({"seed": 1, "probabilities": [0.5, 0.5], "outlier_score": value})


@pytest.mark.parametrize("has_output", [True, False])
def test_spec_and_graph_must_agree_on_the_score(has_output: bool) -> None:
    """A threshold without a score, or a score without a threshold, is no model to serve."""
    model = build_tiny_graph(CAREFUL if has_output else SPEC)
    other = SPEC if has_output else CAREFUL
    onnx.helper.set_model_props(model, {"stroke.model": other.to_json()})

    with pytest.raises(ModelFileError) as refusal:
        OnnxModel(model.SerializeToString(), source="model.onnx")
    assert refusal.value.reason == "MODEL_GRAPH_UNSUITABLE"
