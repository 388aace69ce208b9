"""Projection shortcuts: merged with the convolution they are added to, and joined with one range."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.graph.edit import canonicalise, read_attributes
from converter.graph.shortcuts import merge_shortcuts
from converter.int8.ranges import Ranges
from converter.int8.watch import Watch
from converter.int8.weights.equalise import measure_channels
from converter.int8.weights.joined import balance_joined, share_ranges
from converter.int8.workshop import TARGETS, Workshop
from server.models.contract import ModelSpec
from tests.test_converter_rewrite import SIDE, answer, list_kinds, make_images


def build_block(
    *, stride: int = 1, kernel: int = 1, group: int = 1, bias: bool = True, activated: bool = False
) -> onnx.ModelProto:
    """A residual block whose shortcut is a convolution, as ResNet-50 begins its stages: 4 channels become 8.

    Args:
        stride: of the first convolution and of the shortcut.
        kernel: side of the shortcut's kernel.
        group: of the shortcut.
        bias: whether the block's convolutions have one.
        activated: whether there is a ReLU between shortcut and sum.
    """
    rng = np.random.default_rng(3)
    shapes = {"w0": (4, 1, 3, 3), "w1": (6, 4, 1, 1), "w2": (8, 6, 1, 1), "ws": (8, 4 // group, kernel, kernel)}
    constants = {name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()}
    constants |= {f"b{name[1:]}": rng.normal(0, 0.3, shape[0]) for name, shape in shapes.items()}
    constants["w0"] /= 100

    def convolve(name: str, tensor: str, **attributes: Any) -> onnx.NodeProto:
        inputs = [tensor, f"w{name}", *([f"b{name}"] if bias or name == "0" else [])]
        return helper.make_node("Conv", inputs, [f"sums{name}"], name=f"conv{name}", **attributes)

    strides, border = [stride, stride], [kernel // 2] * 4
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["turned"], perm=(0, 3, 1, 2)),
        convolve("0", "turned"),
        helper.make_node("Relu", ["sums0"], ["entry"]),
        convolve("1", "entry", strides=strides),
        helper.make_node("Relu", ["sums1"], ["inner"]),
        convolve("2", "inner"),
        convolve("s", "entry", strides=strides, pads=border, group=group),
        helper.make_node("Relu", ["sumss"], ["positive"]),
        helper.make_node("Add", ["positive" if activated else "sumss", "sums2"], ["total"], name="add"),
        helper.make_node("Relu", ["total"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["means"]),
        helper.make_node("Flatten", ["means"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return canonicalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_merged_shortcut_answers_the_same(stride: int, bias: bool) -> None:
    """One convolution on the channels of both gives the sum, and a stride is taken once for all that have it."""
    model = build_block(stride=stride, bias=bias)
    expected = answer(model, make_images(3))

    assert merge_shortcuts(model)

    step = [] if stride == 1 else ["MaxPool"]
    assert list_kinds(model)[4:-3] == [*step, "Conv", "Relu", "Concat", "Conv"]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert all(read_attributes(node).get("strides", [1, 1]) == [1, 1] for node in convolutions)
    assert np.allclose(answer(model, make_images(3)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "odd", [{"kernel": 3}, {"group": 2}, {"activated": True}], ids=["3 x 3", "groups", "ReLU between"]
)
def test_other_sums_are_not_merged(odd: dict[str, Any]) -> None:
    """Where one convolution would cost more, or is not the same, the graph stays as it is."""
    model = build_block(**odd)
    before = model.SerializeToString()

    assert not merge_shortcuts(model)

    assert model.SerializeToString() == before


def test_shortcut_of_floats_is_not_merged() -> None:
    """What is not quantised itself cannot be joined in integers."""
    model = build_block()
    entry = next(node.name for node in model.graph.node if "entry" in node.output)

    assert not merge_shortcuts(model, outside=[entry])


def test_sum_that_repeats_one_side_is_not_merged() -> None:
    """A sum with one value for all places is another thing than a convolution."""
    model = build_block()
    for info in model.graph.value_info:
        if info.name == "sumss":
            info.type.tensor_type.shape.dim[2].dim_value = 1

    assert not merge_shortcuts(model)


def test_joined_tensors_are_balanced_and_answer_the_same() -> None:
    """The one that ReLU made gets the other's largest value, and the weights behind take it back."""
    model = build_block(stride=2)
    expected = answer(model, make_images(3))
    merge_shortcuts(model)

    assert balance_joined(model, make_images(3)) == 1

    join = next(node for node in model.graph.node if node.op_type == "Concat")
    first, second = measure_channels(model, list(join.input), make_images(3)).values()
    assert first.max() == pytest.approx(second.max(), rel=1e-4)
    assert np.allclose(answer(model, make_images(3)), expected, rtol=1e-4, atol=1e-5)


def test_tensor_that_others_take_is_not_scaled() -> None:
    """The block's entry stays as it is: another convolution takes it too."""
    model = build_block()
    merge_shortcuts(model)
    before = measure_channels(model, ["entry"], make_images(2))["entry"]

    balance_joined(model, make_images(2))

    assert np.array_equal(measure_channels(model, ["entry"], make_images(2))["entry"], before)


@pytest.mark.parametrize("method", ["min-max", "percentile"])
def test_joined_tensors_share_a_range(method: str) -> None:
    """So do the tensors that a maximum takes them from: none of them is rescaled on the way."""
    model = build_block(stride=2)
    merge_shortcuts(model)
    ranges = Ranges(model, make_images(4), Watch()).find(method)

    share_ranges(model, ranges)

    join = next(node for node in model.graph.node if node.op_type == "Concat")
    wanted = ranges[join.output[0]].range_value
    assert all(np.array_equal(ranges[name].range_value, wanted) for name in (*join.input, "entry"))


def test_joining_quantised_tensors_copies_them(tmp_path: Path) -> None:
    """In what ONNX Runtime makes of the quantised block nothing is added, and what is joined has one scale."""
    model = build_block(stride=2)
    merge_shortcuts(model)
    balance_joined(model, make_images(4))
    ranges = Ranges(model, make_images(4), Watch()).find("min-max")
    share_ranges(model, ranges)
    spec = ModelSpec("block", "1", tuple("abcdefgh"), ("a",), 0.5, colour="grey")
    judge: Any = SimpleNamespace(compare_calibration=lambda made: None)

    workshop = Workshop(model, spec, TARGETS["x86-vnni"], judge, make_images(4), Watch())
    made = workshop.make("min-max", ranges, ())

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(made.data, options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    join = next(node for node in optimised.graph.node if node.op_type == "QLinearConcat")
    values = {item.name: numpy_helper.to_array(item) for item in optimised.graph.initializer}
    scale, first, second = (values[join.input[place]] for place in (0, 3, 6))
    assert scale == first == second
    assert "QLinearAdd" not in list_kinds(optimised)
