"""Where cells of a feature map lie in the image: what a cell sees is spread evenly about its middle."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from converter.graph.cells import find_area
from converter.graph.edit import Graph
from converter.graph.heatmap import read_shapes
from server.models.contract import INPUT_NAME
from tests.fakes import BUNDLED

SIDE = 64


def build_layers(*layers: tuple[str, dict[str, Any]]) -> onnx.ModelProto:
    """A graph of sums and maxima over windows: bytes [N, 64, 64, 1] to a map [N, 1, rows, columns] called ``map``."""
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["0"], perm=[0, 3, 1, 2]),
    ]
    weights = []
    for number, (kind, attributes) in enumerate(layers):
        inputs = [str(number)]
        if kind == "Conv":
            size = attributes["kernel_shape"]
            weights.append(helper.make_tensor(f"w{number}", TensorProto.FLOAT, [1, 1, *size], np.ones(np.prod(size))))
            inputs.append(f"w{number}")
        nodes.append(helper.make_node(kind, inputs, [str(number + 1)], **attributes))
    nodes.append(helper.make_node("Relu", [str(len(layers))], ["map"]))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", 1, "rows", "columns"])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def find_middles(model: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
    """The middle of what each cell of the middle row sees, in columns of pixels, and whether it sees no border."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.zeros((SIDE, SIDE, SIDE, 1), np.uint8)
    images[np.arange(SIDE), :, np.arange(SIDE)] = 1  # one bright column each
    (maps,) = session.run(None, {INPUT_NAME: images})
    seen = maps[:, 0, maps.shape[2] // 2] > 0
    first, last = seen.argmax(axis=0), SIDE - 1 - seen[::-1].argmax(axis=0)
    return (first + last + 1) / 2, (first > 0) & (last < SIDE - 1)


CONV3 = ("Conv", {"kernel_shape": [3, 3]})
POOL2 = ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]})


@pytest.mark.parametrize(
    "layers",
    [
        (CONV3, POOL2, CONV3, POOL2, CONV3),
        (("Conv", {"kernel_shape": [7, 7], "strides": [2, 2], "pads": [3, 3, 3, 3]}), CONV3),
        (("Conv", {"kernel_shape": [7, 7], "strides": [2, 2], "auto_pad": "SAME_UPPER"}), POOL2),
        (("Conv", {"kernel_shape": [4, 4], "strides": [3, 3], "auto_pad": "SAME_LOWER"}), CONV3),
        (("Conv", {"kernel_shape": [3, 3], "dilations": [2, 2]}), ("MaxPool", {"kernel_shape": [3, 3]})),
        (("AveragePool", {"kernel_shape": [5, 5], "strides": [4, 4], "pads": [2, 2, 2, 2]}), CONV3),
    ],
    ids=["as the CNN", "padded", "same upper", "same lower", "dilated", "average"],
)
def test_area_is_what_cells_see(layers: tuple[tuple[str, dict[str, Any]], ...]) -> None:
    """The middles of its even shares are those of what the cells see, where no border cuts that off."""
    model = build_layers(*layers)
    shapes = read_shapes(model)

    left, _, right, _ = find_area(Graph(model), shapes, "map")

    middles, whole = find_middles(model)
    step = (right - left) / len(middles)
    expected = left + step * (np.arange(len(middles)) + 0.5)
    assert whole.sum() >= 3
    assert np.abs(middles - expected)[whole].max() < 1e-6


def test_weights_tell_the_kernel_where_nothing_else_does() -> None:
    """The attribute is optional."""
    model = build_layers(CONV3, POOL2)
    stated = find_area(Graph(model), read_shapes(model), "map")
    for attribute in [one for one in model.graph.node[2].attribute if one.name == "kernel_shape"]:
        model.graph.node[2].attribute.remove(attribute)

    assert find_area(Graph(model), read_shapes(model), "map") == stated == [1, 1, SIDE - 1, SIDE - 1]


def test_padding_of_its_own_shifts_the_cells() -> None:
    """As Keras pads before the first convolution of ResNet-50."""
    model = build_layers(CONV3)
    model.graph.initializer.append(helper.make_tensor("amounts", TensorProto.INT64, [8], [0, 0, 5, 3, 0, 0, 5, 3]))
    model.graph.node.insert(2, helper.make_node("Pad", ["0", "amounts"], ["padded"]))
    model.graph.node[3].input[0] = "padded"

    area = find_area(Graph(model), read_shapes(model), "map")

    assert area == [-2, -4, SIDE + 2, SIDE + 4]


def test_other_ways_share_out_the_whole_image() -> None:
    """Nothing better is known of them."""
    model = build_layers(CONV3)
    model.graph.node.insert(2, helper.make_node("Softplus", ["0"], ["softened"]))
    model.graph.node[3].input[0] = "softened"

    assert find_area(Graph(model), read_shapes(model), "map") == [0, 0, SIDE, SIDE]


def test_bundled_model_leaves_a_margin() -> None:
    """Its convolutions have no padding: a map that was stretched would lie up to 14 pixels beside what it shows."""
    from converter.graph.heatmap import add_heatmap

    explained = add_heatmap(onnx.load(BUNDLED / "model.onnx"))

    assert explained is not None
    (text,) = [entry.value for entry in explained.metadata_props if entry.key == "stroke.heatmap"]
    assert text == '{"area": [15.0, 15.0, 239.0, 239.0]}'
