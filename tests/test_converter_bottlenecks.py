"""INT8 of inverted residuals: ReLU that ends at 6, depthwise convolutions, and sums without an activation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converter.graph.edit import canonicalise, embed_spec
from converter.int8.ranges import METHODS, Ranges
from converter.int8.watch import Watch
from converter.int8.weights.bottlenecks import equalise_bottlenecks
from converter.int8.weights.equalise import ROOM, equalise_channels, measure_channels
from server.models.contract import ModelSpec
from server.models.runtime import OnnxModel

SIDE = 16
SPEC = ModelSpec("small", "1", ("normal", "stroke"), ("stroke",), 0.3, colour="grey")
PIXELS = np.random.default_rng(1).integers(0, 256, (12, SIDE, SIDE, 1), np.uint8)


def build_network(*, activated_sum: bool = False) -> onnx.ModelProto:
    """A convolution, then two blocks of expansion, depthwise convolution and projection, the second one residual.

    Channels are of very different sizes. With ``activated_sum`` ReLU takes the sum as well.
    """
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["turned"], perm=(0, 3, 1, 2)),
    ]
    constants: dict[str, NDArray[Any]] = {"low": np.array(0), "high": np.array(6)}
    channels = {"turned": 1}

    def convolve(taken: str, made: str, filters: int, size: int, *, ends: bool, depthwise: bool = False) -> None:
        inputs = 1 if depthwise else channels[taken]
        weights = rng.normal(0, 1, (filters, inputs, size, size)) / np.sqrt(inputs * size * size)
        uneven = np.exp(rng.uniform(-3, 0, filters)) * (1 / 64 if taken == "turned" else 1)
        constants[f"{made}_weights"] = weights * uneven[:, np.newaxis, np.newaxis, np.newaxis]
        constants[f"{made}_bias"] = rng.uniform(0.8, 1.2, filters) * uneven  # none is always below zero
        plain = f"{made}_plain" if ends else made
        nodes.append(
            helper.make_node(
                "Conv",
                [taken, f"{made}_weights", f"{made}_bias"],
                [plain],
                name=f"conv_{made}",
                pads=[size // 2] * 4,
                group=filters if depthwise else 1,
            )
        )
        if ends:
            nodes.append(helper.make_node("Clip", [plain, "low", "high"], [made]))
        channels[made] = filters

    convolve("turned", "stem", 8, 3, ends=True)
    convolve("stem", "first_depthwise", 8, 3, ends=True, depthwise=True)
    convolve("first_depthwise", "first", 4, 1, ends=False)
    convolve("first", "expanded", 12, 1, ends=True)
    convolve("expanded", "depthwise", 12, 3, ends=True, depthwise=True)
    convolve("depthwise", "second", 4, 1, ends=False)
    nodes.append(helper.make_node("Add", ["first", "second"], ["sum"], name="add"))
    channels["sum"] = 4
    convolve("sum", "top", 6, 1, ends=True)
    if activated_sum:
        nodes.append(helper.make_node("Relu", ["sum"], ["also"]))
    constants["dense"] = rng.normal(0, 4, (6, 2))
    nodes += [
        helper.make_node("GlobalAveragePool", ["top"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])]
    if activated_sum:
        outputs.append(helper.make_tensor_value_info("also", TensorProto.FLOAT, ["N", 4, SIDE, SIDE]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        outputs,
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return canonicalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def answer(model: onnx.ModelProto) -> NDArray[np.float32]:
    return OnnxModel(embed_spec(model, SPEC), source="test").run(PIXELS)


def measure(model: onnx.ModelProto, *names: str) -> Mapping[str, NDArray[np.float32]]:
    """The largest absolute value of each channel of some tensors."""
    return measure_channels(model, list(names), PIXELS)


def test_channels_grow_up_to_where_the_activation_ends() -> None:
    """Before depthwise weights all the way, less some room; no answer changes, and no channel comes to the end."""
    model = build_network()
    before, expected = measure(model, "expanded", "depthwise"), answer(model)
    assert max(values.max() for values in before.values()) < 6

    assert equalise_channels(model, PIXELS) == 4

    after = measure(model, "expanded", "depthwise")
    assert np.allclose(answer(model), expected, atol=1e-5)
    assert np.allclose(after["expanded"], 6 / (1 + ROOM), rtol=1e-4)
    assert (after["depthwise"] <= 6 / (1 + ROOM) + 1e-4).all()
    spread = [found["depthwise"].max() / found["depthwise"].min() for found in (before, after)]
    assert spread[1] == pytest.approx(spread[0] ** 0.5, rel=0.3)


def test_channel_that_comes_to_the_end_stays() -> None:
    """What is cut at 6 would be cut elsewhere if its channel was scaled."""
    model = build_network()
    constant = next(item for item in model.graph.initializer if item.name == "expanded_bias")
    bias = numpy_helper.to_array(constant).copy()
    bias[3] = 7
    constant.CopyFrom(numpy_helper.from_array(bias, "expanded_bias"))
    expected = answer(model)

    equalise_channels(model, PIXELS)

    assert measure(model, "expanded")["expanded"][3] == 6
    assert np.allclose(answer(model), expected, atol=1e-5)


def test_sums_of_bottlenecks_are_evened_out_exactly() -> None:
    """All that sums tie together shares its factors: the answers stay, and the channels are nearer to each other."""
    model = build_network()
    before, expected = measure(model, "first", "second", "sum"), answer(model)

    assert equalise_bottlenecks(model, PIXELS) == 1

    after = measure(model, "first", "second", "sum")
    assert np.allclose(answer(model), expected, atol=1e-5)
    spreads = [np.max(list(found.values()), axis=0) for found in (before, after)]
    assert spreads[1].max() / spreads[1].min() == pytest.approx((spreads[0].max() / spreads[0].min()) ** 0.5, rel=1e-3)


def test_sum_that_something_else_takes_stays() -> None:
    """There nothing would take the factors back."""
    model = build_network(activated_sum=True)
    before = model.SerializeToString()
    assert equalise_bottlenecks(model, PIXELS) == 0
    assert model.SerializeToString() == before


def test_ranges_end_where_activations_end() -> None:
    """Room beyond 6 would be for values that cannot be, and integers would no longer cut there."""
    model = build_network()
    constant = next(item for item in model.graph.initializer if item.name == "stem_bias")
    constant.CopyFrom(numpy_helper.from_array(np.full(8, 9, np.float32), "stem_bias"))
    ranges = Ranges(model, PIXELS, Watch())
    for method in METHODS:
        assert float(ranges.find(method)["stem"].range_value[1]) == 6
