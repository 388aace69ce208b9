"""Rewrites of the exported graph: each answers the same on random weights and inputs, or leaves the graph alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converter.graph.blocks import split_phases
from converter.graph.edit import canonicalise
from converter.graph.fold import fold_input
from converter.graph.rewrite import merge_pool_padding, pad_channels
from converter.int8.weights.equalise import equalise_channels, measure_channels

SIDE = 24


def build_graph(
    *,
    seed: int = 0,
    copies: int = 3,
    channels: int = 1,
    kernel: tuple[int, int] = (3, 3),
    filters: int = 8,
    pads: int = 0,
    shift: bool = True,
    side: int = SIDE,
    **convolution: Any,
) -> onnx.ModelProto:
    """Pixels, repeated, scaled and shifted per channel, a convolution, ReLU, pooling, and the mean of each filter."""
    rng = np.random.default_rng(seed)
    width = channels * copies
    scales, shifts = rng.uniform(0.002, 0.02, width), rng.uniform(-1, 1, width)
    weights, bias = rng.normal(0, 0.3, (filters, width, *kernel)), rng.normal(0, 0.3, filters)
    constants = {"scales": scales, "shifts": shifts if shift else 0 * shifts, "weights": weights, "bias": bias}
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["float"] * copies, ["repeated"], axis=3),
        helper.make_node("Mul", ["repeated", "scales"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shifts"], ["shifted"]) if shift else None,
        helper.make_node("Transpose", ["shifted" if shift else "scaled"], ["turned"], perm=(0, 3, 1, 2)),
        helper.make_node(
            "Conv", ["turned", "weights", "bias"], ["sums"], kernel_shape=kernel, pads=[pads] * 4, **convolution
        ),
        helper.make_node("Relu", ["sums"], ["positive"]),
        helper.make_node("MaxPool", ["positive"], ["pooled"], kernel_shape=(2, 2), strides=(2, 2)),
        helper.make_node("GlobalAveragePool", ["pooled"], ["means"]),
        helper.make_node("Flatten", ["means"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        [node for node in nodes if node is not None],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", side, side, channels])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", filters])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return canonicalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def answer(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images})[0])


def make_images(count: int, side: int = SIDE, channels: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def list_kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("seed", range(4))
def test_folding_answers_the_same(seed: int) -> None:
    """Three equal channels with their own scales and shifts become one channel of plain pixels."""
    model = build_graph(seed=seed)
    expected = answer(model, make_images(3))

    assert fold_input(model)

    assert list_kinds(model)[:3] == ["Cast", "Transpose", "Conv"]
    assert np.allclose(answer(model, make_images(3)), expected, atol=2e-5)


def test_colours_keep_their_channels() -> None:
    """Of an RGB model only scale and shift are folded."""
    model = build_graph(copies=1, channels=3)
    expected = answer(model, make_images(2, channels=3))

    assert fold_input(model)

    assert list_kinds(model)[:3] == ["Cast", "Transpose", "Conv"]
    assert np.allclose(answer(model, make_images(2, channels=3)), expected, atol=2e-5)


@pytest.mark.parametrize(("copies", "channels"), [(3, 1), (1, 3)], ids=["grey", "colour"])
def test_shift_is_folded_past_a_padded_border(copies: int, channels: int) -> None:
    """Zeros around the shifted image are not zeros around the pixels, so the shift gets a padded channel of its own."""
    model = build_graph(pads=1, copies=copies, channels=channels)
    expected = answer(model, make_images(2, channels=channels))

    assert fold_input(model)

    assert list_kinds(model)[:4] == ["Cast", "Transpose", "Pad", "Conv"]
    assert np.allclose(answer(model, make_images(2, channels=channels)), expected, atol=2e-5)


def test_scale_is_folded_past_a_padded_border() -> None:
    """Zero times anything is zero."""
    model = build_graph(pads=1, shift=False)
    expected = answer(model, make_images(2))

    assert fold_input(model)

    assert np.allclose(answer(model, make_images(2)), expected, atol=2e-5)


def test_grouped_convolution_is_not_folded() -> None:
    """Its weights do not see all channels."""
    model = build_graph()
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    convolution.attribute.append(helper.make_attribute("group", 3))

    assert not fold_input(model)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 2), (5, 3), (1, 1), (4, 7)])
@pytest.mark.parametrize("seed", range(2))
def test_phases_answer_the_same(kernel: tuple[int, int], seed: int) -> None:
    """Four phases and their maximum are the convolution and its pooling, for odd and even kernels."""
    model = build_graph(kernel=kernel, seed=seed)
    fold_input(model)
    expected = answer(model, make_images(3))

    assert split_phases(model)

    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = next(item for item in model.graph.initializer if item.name == convolution.input[1])
    assert list(weights.dims)[:2] == [32, 4]
    assert np.allclose(answer(model, make_images(3)), expected, atol=2e-5)


@pytest.mark.parametrize(
    "odd",
    [
        {"side": 25},
        {"strides": [2, 2]},
        {"dilations": [2, 2]},
        {"pads": 1, "shift": False},
        {"copies": 1, "channels": 3},
    ],
    ids=["odd side", "stride", "dilation", "padding", "colours"],
)
def test_other_first_layers_are_not_split(odd: dict[str, Any]) -> None:
    """Where the pattern is not there, the graph stays as it is."""
    model = build_graph(**odd)
    fold_input(model)
    before = model.SerializeToString()

    assert not split_phases(model)

    assert model.SerializeToString() == before


@pytest.mark.parametrize("channels", [1, 3])
def test_padded_channels_answer_the_same(channels: int) -> None:
    """Zero channels with zero weights change nothing, and make four of one or three."""
    model = build_graph(copies=1, channels=channels, pads=1)
    expected = answer(model, make_images(2, channels=channels))

    assert pad_channels(model)

    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = next(item for item in model.graph.initializer if item.name == convolution.input[1])
    assert weights.dims[1] == 4
    assert np.array_equal(answer(model, make_images(2, channels=channels)), expected)


def test_constant_channel_is_padded_in_one_step() -> None:
    """The channel that holds a shift is repeated, with zero weights, rather than followed by another step."""
    model = build_graph(pads=1)
    fold_input(model)
    expected = answer(model, make_images(2))

    assert pad_channels(model)

    assert list_kinds(model)[:4] == ["Cast", "Transpose", "Pad", "Conv"]
    assert np.array_equal(answer(model, make_images(2)), expected)


def test_four_channels_are_not_padded() -> None:
    """What the kernels take anyway stays as it is."""
    model = build_graph(copies=4)
    before = copy.deepcopy(model)

    assert not pad_channels(model)
    assert model == before


def build_padded_pool(*, border: int = 1, value: float = 0.0, with_relu: bool = True) -> onnx.ModelProto:
    """Pixels about zero, ReLU, padding, and a maximum over 3 x 3."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "middle"], ["centred"]),
        helper.make_node("Relu" if with_relu else "Tanh", ["centred"], ["active"]),
        helper.make_node("Pad", ["active", "amounts", "value"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["pooled"], kernel_shape=(3, 3), strides=(2, 2)),
        helper.make_node("Flatten", ["pooled"], ["probabilities"]),
    ]
    constants = {
        "middle": np.array(128, np.float32),
        "amounts": np.array([0, 0, border, border] * 2, np.int64),
        "value": np.array(value, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 2, 9, 9])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", None])],
        [numpy_helper.from_array(constant, name) for name, constant in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_padding_of_a_maximum_answers_the_same() -> None:
    """After ReLU, zeros around the image are what a padded maximum leaves out."""
    model = build_padded_pool()
    images = np.random.default_rng(1).integers(0, 256, (2, 2, 9, 9), dtype=np.uint8)
    expected = answer(model, images)

    assert merge_pool_padding(model)

    assert "Pad" not in list_kinds(model)
    assert np.array_equal(answer(model, images), expected)


@pytest.mark.parametrize("odd", [{"border": 3}, {"value": 1.0}, {"with_relu": False}], ids=["wide", "ones", "no ReLU"])
def test_other_paddings_stay(odd: dict[str, Any]) -> None:
    """Where a window can lie in the border, or what is in it can win, the graph stays as it is."""
    model = build_padded_pool(**odd)
    before = model.SerializeToString()

    assert not merge_pool_padding(model)

    assert model.SerializeToString() == before


def test_canonical_form_has_no_shape_arithmetic() -> None:
    """A shape that is computed from the batch becomes a constant, and any batch is still answered."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Shape", ["float"], ["shape"]),
            helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
            helper.make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
            helper.make_node("Reshape", ["float", "wanted"], ["probabilities"]),
        ],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 4, 4, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 16])],
        [
            numpy_helper.from_array(np.array(value, np.int64), name)
            for name, value in (("zero", [0]), ("one", [1]), ("rest", [16]))
        ],
    )
    model = canonicalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))

    assert list_kinds(model) == ["Cast", "Reshape"]
    assert answer(model, make_images(3, side=4)).shape == (3, 16)


def build_chain(*, with_relu: bool = True, residual: bool = False) -> onnx.ModelProto:
    """Two convolutions with ReLU and a maximum between them; channels of the first differ by factors of thousands."""
    rng = np.random.default_rng(2)
    gains = 10.0 ** np.arange(-2, 2)
    constants = {
        "w1": rng.normal(0, 0.01, (4, 1, 3, 3)) * gains[:, np.newaxis, np.newaxis, np.newaxis],
        "b1": rng.normal(0, 0.01, 4) * gains,
        "w2": rng.normal(0, 1, (3, 4, 2, 2)) / gains[np.newaxis, :, np.newaxis, np.newaxis],
        "b2": rng.normal(0, 1, 3),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["turned"], perm=(0, 3, 1, 2)),
        helper.make_node("Conv", ["turned", "w1", "b1"], ["sums"], name="first"),
        helper.make_node("Relu" if with_relu else "Sigmoid", ["sums"], ["active"]),
        helper.make_node("MaxPool", ["active"], ["pooled"], kernel_shape=(2, 2), strides=(2, 2)),
        helper.make_node("Conv", ["pooled", "w2", "b2"], ["more"], name="second"),
        helper.make_node("GlobalAveragePool", ["more"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("ReduceSum", ["active"] if residual else ["flat"], ["all"], keepdims=0),
        helper.make_node("Add", ["flat", "all"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_equalised_channels_answer_the_same_with_similar_ranges() -> None:
    """Channels that differed by a factor of thousands differ by its square root, and no answer changes."""
    model = build_chain()
    images = make_images(3)
    expected = answer(model, images)
    before = measure_channels(model, ["active"], images)["active"]

    assert equalise_channels(model, images) == 1

    after = measure_channels(model, ["active"], images)["active"]
    assert np.allclose(answer(model, images), expected, rtol=1e-4, atol=1e-4)
    assert before.max() / before.min() > 500
    assert after.max() / after.min() == pytest.approx(np.sqrt(before.max() / before.min()), rel=1e-3)


@pytest.mark.parametrize("odd", [{"with_relu": False}, {"residual": True}], ids=["no ReLU", "taken elsewhere too"])
def test_channels_that_something_else_sees_are_not_equalised(odd: dict[str, bool]) -> None:
    """Only what lets a factor through, and nothing else takes, is changed."""
    model = build_chain(**odd)
    before = model.SerializeToString()

    assert equalise_channels(model, make_images(1)) == 0

    assert model.SerializeToString() == before
