"""The INT8 variant that decides as fp32 does, because fp32 decides where INT8 might not: both networks in one file."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converter.errors import AccuracyError
from converter.graph.edit import embed_spec
from converter.int8.calibrate import CalibrationSets
from converter.int8.cascade import PREFIX, Band, choose_band, join
from converter.int8.quantize import Quantised, quantise
from converter.outlier.surgery import add_scores
from converter.report import render_variant
from server.models.contract import ModelSpec
from server.models.manifest import INT8_FILE, MODEL_FILE
from server.models.runtime import OnnxModel
from tests.test_converter_quantize import SPEC, build_network, make_slices

pytestmark = pytest.mark.usefixtures("steady_speed")

BAND = Band(((0.28, 0.32), (0.48, 0.52)), 0.1)


def pair(strokes: list[float]) -> NDArray[np.float64]:
    """Probabilities [N, 2] of normal and stroke."""
    return np.stack([1 - np.array(strokes), strokes], axis=1)


def build_line(factor: float, *, fails: bool = False) -> onnx.ModelProto:
    """A network whose probability of a stroke is the first pixel over 255, times a factor.

    One that ``fails`` looks a number up that is not there, so that it cannot be run.
    """
    nodes = [
        helper.make_node("Slice", ["image", "zeros", "ones", "axes"], ["corner"]),
        helper.make_node("Reshape", ["corner", "row"], ["pixel"]),
        helper.make_node("Cast", ["pixel"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["grey", "factor"], ["stroke"]),
        helper.make_node("Sub", ["one", "stroke"], ["normal"]),
        helper.make_node("Concat", ["normal", "stroke"], ["both" if fails else "probabilities"], axis=1),
    ]
    if fails:
        nodes += [
            helper.make_node("Cast", ["pixel"], ["place"], to=TensorProto.INT64),
            helper.make_node("Add", ["place", "far"], ["beyond"]),
            helper.make_node("GatherElements", ["both", "beyond"], ["nothing"], axis=1),
            helper.make_node("Add", ["both", "nothing"], ["probabilities"]),
        ]
    constants = {
        "zeros": np.zeros(2, np.int64),
        "ones": np.ones(2, np.int64),
        "axes": np.array([1, 2], np.int64),
        "row": np.array([-1, 1], np.int64),
        "far": np.array(1000, np.int64),
        "factor": np.array(factor / 255, np.float32),
        "one": np.array(1, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "line",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 4, 4, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def load(model: onnx.ModelProto) -> OnnxModel:
    return OnnxModel(embed_spec(model, SPEC), source="a cascade")


def draw(greys: list[int]) -> NDArray[np.uint8]:
    """Images uint8 [N, 4, 4, 1] of one grey each."""
    return np.broadcast_to(np.array(greys, np.uint8)[:, None, None, None], (len(greys), 4, 4, 1)).copy()


GREYS = [10, 70, 76, 80, 90, 122, 128, 132, 140, 250]
"""Over 255 in a part of the band: the third and fourth, and the seventh and eighth."""


def test_fp32_answers_near_a_threshold_and_int8_everywhere_else() -> None:
    """In a batch each image is answered as it would be alone."""
    fast, exact = load(build_line(1.0)), load(build_line(1.01))
    cascade = load(join(build_line(1.0), build_line(1.01), SPEC, BAND))

    answers = cascade.run(draw(GREYS))

    is_near = [grey in (76, 80, 128, 132) for grey in GREYS]
    wanted = np.where(np.array(is_near)[:, None], exact.run(draw(GREYS)), fast.run(draw(GREYS)))
    np.testing.assert_array_equal(answers, wanted)
    np.testing.assert_array_equal(answers, np.concatenate([cascade.run(draw([grey])) for grey in GREYS]))


def test_fp32_does_not_run_where_it_is_not_asked() -> None:
    """A second network that cannot run is no harm until an image is near a threshold."""
    cascade = load(join(build_line(1.0), build_line(1.0, fails=True), SPEC, BAND))

    assert cascade.run(draw([10, 250])).shape == (2, 2)
    with pytest.raises(Exception, match="GatherElements"):
        cascade.run(draw([10, 76]))


def test_constants_that_both_networks_have_are_in_the_file_once() -> None:
    """Such as the weights of dense layers, which stay fp32; those that differ are kept beside each other."""
    joined = join(build_line(1.0), build_line(1.01), SPEC, BAND)

    second = next(item.g for item in joined.graph.node[-1].attribute if item.name == "then_branch")
    assert [item.name for item in second.initializer] == [f"{PREFIX}exact/factor"]


def move(strokes: NDArray[np.float64], log_odds: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Probabilities [N, 2] whose log-odds are moved."""
    return pair(list(1 / (1 + (1 - strokes) / strokes * np.exp(-log_odds))))


def test_band_is_as_wide_as_errors_of_int8() -> None:
    """Nineteen of twenty of those near a threshold fit into it; those of clear slices do not count."""
    strokes = np.concatenate([np.full(9_000, 0.001), np.linspace(0.01, 0.99, 1_000)])
    errors = np.concatenate([np.full(9_000, 0.7), np.tile(np.linspace(0, 0.1, 100), 10)])
    answers = move(strokes, errors)

    band = choose_band(SPEC, pair(list(strokes)), answers)

    assert band is not None
    wanted = [move(np.array([threshold]), error)[0, 1] for threshold in (0.3, 0.5) for error in (-0.095, 0.095)]
    assert np.ravel(band.parts) == pytest.approx(wanted, abs=1e-3)
    assert band.share == np.mean([any(low <= stroke <= high for low, high in band.parts) for stroke in answers[:, 1]])


def test_band_is_as_wide_as_all_errors_where_few_slices_are_near() -> None:
    """A network that is sure of nearly all slices does not say how it errs where it is not."""
    strokes = np.concatenate([np.full(500, 0.001), np.full(500, 0.999), np.linspace(0.2, 0.5, 40)])
    answers = move(strokes, np.tile(np.linspace(0, 0.1, 104), 10))

    band = choose_band(SPEC, pair(list(strokes)), answers)

    assert band is not None
    assert np.ravel(band.parts[:1]) == pytest.approx(
        [move(np.array([0.3]), e)[0, 1] for e in (-0.095, 0.095)], abs=1e-3
    )


def test_threshold_of_a_half_is_one_band() -> None:
    strokes = np.array([0.1, 0.4, 0.9])

    band = choose_band(replace(SPEC, threshold=0.5), pair(list(strokes)), move(strokes, 0.04))

    assert band is not None
    assert np.ravel(band.parts) == pytest.approx([0.49, 0.51], abs=1e-4)


def test_there_is_no_band_where_many_images_would_be_in_it() -> None:
    """Two networks for so many would be hardly faster than fp32 alone."""
    strokes = np.linspace(0.25, 0.35, 100)

    assert choose_band(SPEC, pair(list(strokes)), move(strokes, 0.1)) is None
    assert choose_band(SPEC, pair(list(strokes)), move(strokes, 0.01)) is not None


def test_certain_answers_have_log_odds_too() -> None:
    """Probabilities of 0 and 1, which a softmax rounds to, are no reason to fail."""
    band = choose_band(SPEC, pair([0.0, 1.0, 0.1]), pair([0.0, 1.0, 0.1]))

    assert band is not None
    assert np.ravel(band.parts) == pytest.approx([0.3, 0.3, 0.5, 0.5])


def test_there_is_no_band_with_more_than_two_labels() -> None:
    """The label changes elsewhere than at a threshold, too."""
    spec = ModelSpec("small", "1", ("normal", "bleed", "clot"), ("bleed", "clot"), 0.3)
    answers = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])

    assert choose_band(spec, answers, answers) is None


SETS = CalibrationSets(make_slices(600, 0), make_slices(1200, 5000), "made for the test")


def make_int8() -> Quantised:
    """A variant of a network whose layers have offsets that leave INT8 few levels."""
    model = build_network((0, 1, 2), amount=20)
    return quantise(model, OnnxModel(embed_spec(model, SPEC), source="fp32"), SETS, target="x86-vnni")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Quantised:
    """A variant whose labels must all be those of fp32, which INT8 alone does not reach."""
    monkeypatch.setattr("server.models.agreement.LEAST_AGREEMENT", 1.0)
    monkeypatch.setattr("server.models.agreement.ONE_LABEL", 0)
    with monkeypatch.context() as alone:
        alone.setattr("converter.int8.quantize.choose_band", lambda *_: None)
        with pytest.raises(AccuracyError, match="label agreement"):
            make_int8()
    return make_int8()


def test_variant_whose_labels_alone_fail_passes_as_a_cascade(made: Quantised) -> None:
    """All its layers are integers, its answers apart from the band are those of INT8, and it says where the band is."""
    assert made.band is not None
    assert [low < threshold < high for threshold, (low, high) in zip((0.3, 0.5), made.band.parts, strict=True)] == [
        True
    ] * 2
    assert made.fp32_layers == ()
    assert made.gate.held_out.agreement_at_threshold == made.gate.held_out.agreement_at_half == 1
    assert made.gate.held_out.mean_difference > 0
    document = made.to_document()
    assert document["cascade"] == asdict(made.band)
    assert f"fp32 answers where INT8 says {made.band.parts[0][0]:.3f} to " in render_variant(
        {"size": len(made.data), "target": made.target, **document}
    )


def test_cascade_takes_an_outlier_score(made: Quantised) -> None:
    """The score is of what the INT8 network sees; the probabilities stay."""
    files = {MODEL_FILE: embed_spec(build_network((0, 1, 2), amount=20), SPEC), INT8_FILE: made.data}

    scored, spec = add_scores(files, SPEC, SETS)

    image = make_slices(40, 77).pixels
    before, after = OnnxModel(made.data, source="before"), OnnxModel(scored[INT8_FILE], source="after")
    found = after.score(image)
    assert spec.outlier_threshold > 0
    assert found.outlier.shape == (40,)
    np.testing.assert_allclose(found.probabilities, before.run(image), atol=1e-6)
