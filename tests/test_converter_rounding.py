"""Rounding of weights: whole steps, answers kept on what the convolution takes, and nothing that need not move."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converter.int8.watch import Watch
from converter.int8.weights.moments import MOST_TOGETHER, PLACES, Moments, Window, measure_moments
from converter.int8.weights.rounding import round_filters, round_weights
from server.models.contract import INPUT_NAME

WEIGHTS = np.random.default_rng(4).normal(0, 0.2, (16, 4, 3, 3))
SIDE = 24


def make_window(weights: NDArray[np.float64], groups: int = 1) -> Window:
    return Window("x", groups, weights.shape[1], weights.shape[2:], [1, 1], [1, 1], [0, 0, 0, 0])


def draw_inputs(weights: NDArray[np.float64], groups: int = 1) -> NDArray[np.float32]:
    """What a convolution takes, [places, inputs]: neighbours are alike, and the mean is not zero."""
    rng = np.random.default_rng(9)
    inputs = groups * weights[0].size
    common = rng.normal(0, 1, (600, 1))
    return (2 + common + 0.3 * rng.normal(0, 1, (600, inputs))).astype(np.float32)


def measure(weights: NDArray[np.float64], inputs: NDArray[np.float32], groups: int = 1) -> Moments:
    moments = Moments(make_window(weights, groups))
    moments.add(inputs)
    return moments


def steps_of(weights: NDArray[np.float64], steps: int = 127) -> NDArray[np.float64]:
    """Size of a step of each filter."""
    found: NDArray[np.float64] = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / steps
    return found


def answer(weights: NDArray[np.float64], inputs: NDArray[np.float32], groups: int = 1) -> NDArray[np.float64]:
    """Sums of the filters, [places, filters]."""
    per_group = inputs.reshape(len(inputs), groups, -1)
    filters = weights.reshape(groups, len(weights) // groups, -1)
    return np.einsum("pgi,gfi->pgf", per_group, filters).reshape(len(inputs), -1)


@pytest.mark.parametrize("steps", [127, 64])
@pytest.mark.parametrize("groups", [1, 2, 16], ids=["all channels", "two groups", "depthwise"])
def test_answers_change_less_than_by_rounding_one_by_one(steps: int, groups: int) -> None:
    """By far, as what neighbours are multiplied by is alike; and not at all on average."""
    weights = WEIGHTS if groups == 1 else WEIGHTS[:, : max(1, 4 // groups)]
    inputs = draw_inputs(weights, groups)
    step = steps_of(weights, steps)

    rounded, shift = round_filters(weights, measure(weights, inputs, groups), steps)

    exact = answer(weights, inputs, groups)
    error = answer(rounded, inputs, groups) + shift - exact
    plain = answer(np.round(weights / step) * step, inputs, groups) - exact
    assert np.square(error).mean() < 0.25 * np.square(plain).mean()
    assert np.abs(error.mean(axis=0)).max() < 1e-4


def test_weights_are_whole_steps_and_the_largest_stays() -> None:
    """It sets the scale of its filter."""
    step = steps_of(WEIGHTS)

    rounded, _ = round_filters(WEIGHTS, measure(WEIGHTS, draw_inputs(WEIGHTS)), 127)

    assert np.allclose(rounded / step, np.round(rounded / step))
    assert np.allclose(steps_of(rounded), step)


def test_zeros_stay_zeros() -> None:
    """Also in a filter of nothing else."""
    weights = WEIGHTS.copy()
    weights[:, :, 0] = 0
    weights[3] = 0

    rounded, shift = round_filters(weights, measure(weights, draw_inputs(weights)), 127)

    assert not rounded[weights == 0].any()
    assert shift[3] == 0


def test_what_never_varies_is_rounded_to_the_next_step() -> None:
    """A layer that takes the same everywhere says nothing about its weights; the bias takes the error back."""
    inputs = np.full((50, WEIGHTS[0].size), 3, np.float32)
    step = steps_of(WEIGHTS)

    rounded, shift = round_filters(WEIGHTS, measure(WEIGHTS, inputs), 127)

    assert np.allclose(rounded, np.round(WEIGHTS / step) * step)
    assert np.allclose(shift, 3 * (WEIGHTS - rounded).sum(axis=(1, 2, 3)), atol=1e-5)


def test_small_changes_of_large_values_are_seen() -> None:
    """Their squares alone would drown what varies."""
    inputs = draw_inputs(WEIGHTS)

    moments = measure(WEIGHTS, inputs * np.float32(0.01) + np.float32(300))

    assert np.allclose(moments.covariance, np.cov(inputs.T.astype(np.float64), bias=True) * 1e-4, atol=5e-6)


def test_large_filters_are_rounded_in_parts() -> None:
    """Memory for the covariance is bounded."""
    weights = np.random.default_rng(2).normal(0, 0.2, (3, 2 * MOST_TOGETHER // 9, 3, 3))
    inputs = draw_inputs(weights)
    moments = measure(weights, inputs)
    step = steps_of(weights)

    rounded, shift = round_filters(weights, moments, 127)

    assert moments.covariance.shape == (2, MOST_TOGETHER, MOST_TOGETHER)
    exact = answer(weights, inputs)
    plain = answer(np.round(weights / step) * step, inputs) - exact
    assert np.square(answer(rounded, inputs) + shift - exact).mean() < 0.25 * np.square(plain).mean()


def build_graph(weights: NDArray[np.float64], **attributes: object) -> onnx.ModelProto:
    """One convolution of pixels [N, SIDE, SIDE, channels]."""
    channels = weights.shape[1] * int(attributes.get("group", 1))  # type: ignore[call-overload]
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], perm=(0, 3, 1, 2)),
        helper.make_node("Conv", ["x", "weights"], ["y"], name="conv", **attributes),
    ]
    ports = [
        helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [1, SIDE, SIDE, channels]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    constant = numpy_helper.from_array(weights.astype(np.float32), "weights")
    graph = helper.make_graph(nodes, "graph", ports[:1], ports[1:], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 2]},
        {"group": 4, "pads": [0, 1, 2, 1], "strides": [2, 1]},
    ],
    ids=str,
)
def test_moments_are_those_of_what_the_filters_are_laid_on(attributes: dict[str, object]) -> None:
    """The mean answer follows from the mean, and its variance from the covariance, whatever stride and padding are."""
    is_grouped = "group" in attributes
    weights = WEIGHTS[:, :1] if is_grouped else WEIGHTS
    model = build_graph(weights, **attributes)
    pixels = np.random.default_rng(3).integers(0, 256, (40, SIDE, SIDE, 4), np.uint8)

    moments = measure_moments(model, ["conv"], pixels, Watch())["conv"]

    session = onnxruntime.InferenceSession(model.SerializeToString())
    answers = np.concatenate([session.run(["y"], {INPUT_NAME: image[np.newaxis]})[0] for image in pixels])
    filters = moments.split(weights)
    mean = moments.join(filters @ moments.mean[:, :, np.newaxis]).sum(axis=1)
    variance = moments.join(((filters @ moments.covariance) * filters).sum(axis=2, keepdims=True)).sum(axis=1)
    spread = answers.std(axis=(0, 2, 3))
    assert answers[0, 0].size > PLACES  # so that some were drawn
    assert np.abs(mean - answers.mean(axis=(0, 2, 3))).max() < 0.1 * spread.min()
    assert np.allclose(np.sqrt(variance), spread, rtol=0.1)


def test_graph_gets_whole_steps_and_a_bias() -> None:
    """A convolution that had none, too."""
    model = build_graph(WEIGHTS)
    pixels = np.random.default_rng(3).integers(0, 256, (4, SIDE, SIDE, 4), np.uint8)

    round_weights(model, measure_moments(model, ["conv"], pixels, Watch()), steps=127, watch=Watch())

    (node,) = (node for node in model.graph.node if node.op_type == "Conv")
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    step = steps_of(WEIGHTS)
    assert set(constants) == set(node.input[1:])
    assert np.allclose(constants[node.input[1]] / step, np.round(constants[node.input[1]] / step), atol=1e-3)
    assert constants[node.input[2]].shape == (16,)
