"""Pixels before the first convolution: gathered in blocks, and with channels added to them as planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from converter.graph.blocks import gather_blocks
from converter.graph.edit import read_attributes
from converter.graph.fold import fold_input
from converter.graph.rewrite import pad_channels, pad_planes
from tests.test_converter_rewrite import answer, build_graph, list_kinds, make_images


def find_weights(model: onnx.ModelProto) -> tuple[onnx.NodeProto, list[int]]:
    """The first convolution and the shape of its weights."""
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = next(item for item in model.graph.initializer if item.name == convolution.input[1])
    return convolution, list(weights.dims)


@pytest.mark.parametrize("kernel", [(7, 7), (3, 3), (2, 2), (5, 4), (1, 1)])
@pytest.mark.parametrize("pads", range(4))
def test_blocks_answer_the_same(kernel: tuple[int, int], pads: int) -> None:
    """Whatever the kernel and its padding, constant channel or not: stride 1 on blocks is stride 2 on pixels."""
    model = build_graph(kernel=kernel, pads=pads, strides=[2, 2])
    fold_input(model)
    expected = answer(model, make_images(3))

    assert gather_blocks(model)

    convolution, (_, channels, *_) = find_weights(model)
    assert read_attributes(convolution).get("strides", [1, 1]) == [1, 1]
    assert channels == (8 if pads else 4)  # whole vectors, with the constant channel and without
    assert np.allclose(answer(model, make_images(3)), expected, atol=2e-5)


@pytest.mark.parametrize("kernel", [(7, 7), (3, 3), (4, 5), (1, 1)])
def test_blocks_know_the_padding_that_keeps_a_size(kernel: tuple[int, int]) -> None:
    """Of an even side, stride 2 pads more after than before."""
    model = build_graph(kernel=kernel, strides=[2, 2], shift=False)
    convolution, _ = find_weights(model)
    for attribute in [item for item in convolution.attribute if item.name in ("pads", "auto_pad")]:
        convolution.attribute.remove(attribute)
    convolution.attribute.append(onnx.helper.make_attribute("auto_pad", "SAME_UPPER"))
    del model.graph.value_info[:]  # sizes without the padding
    fold_input(model)
    expected = answer(model, make_images(2))

    assert gather_blocks(model)

    assert np.allclose(answer(model, make_images(2)), expected, atol=2e-5)


@pytest.mark.parametrize(
    "odd",
    [
        {"side": 25},
        {"strides": [1, 2]},
        {"strides": [2, 2], "dilations": [2, 2]},
        {"strides": [2, 2], "copies": 1, "channels": 3},
    ],
    ids=["odd side", "one stride", "dilation", "colours"],
)
def test_other_first_convolutions_are_not_gathered(odd: dict[str, Any]) -> None:
    """Where blocks do not fit, or are not faster, the graph stays as it is."""
    model = build_graph(**odd)
    fold_input(model)
    before = model.SerializeToString()

    assert not gather_blocks(model)

    assert model.SerializeToString() == before


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shift", [True, False], ids=["constant", "zeros"])
def test_planes_answer_the_same(channels: int, shift: bool) -> None:
    """Channels behind those of the pixels are one piece of memory, and no pixel is padded by itself."""
    model = build_graph(channels=channels, copies=1, pads=1, shift=shift)
    fold_input(model)
    pad_channels(model)
    model = onnx.shape_inference.infer_shapes(model)
    expected = answer(model, make_images(2, channels=channels))

    assert pad_planes(model)

    assert list_kinds(model)[:6] == ["Cast", "Transpose", "Reshape", "Pad", "Reshape", "Conv"]
    assert np.array_equal(answer(model, make_images(2, channels=channels)), expected)


def test_blocks_take_their_constant_channel_as_planes() -> None:
    """Both rewrites together, as the quantiser makes them."""
    model = build_graph(kernel=(7, 7), pads=3, strides=[2, 2])
    fold_input(model)
    expected = answer(model, make_images(2))
    gather_blocks(model)
    model = onnx.shape_inference.infer_shapes(model)

    assert pad_planes(model)

    assert list_kinds(model)[:9] == [
        "Cast",
        *("Reshape", "Transpose", "Reshape", "Transpose"),
        *("Reshape", "Pad", "Reshape", "Conv"),
    ]
    assert np.allclose(answer(model, make_images(2)), expected, atol=2e-5)


def test_pixels_without_added_channels_have_no_planes() -> None:
    """Nothing is padded, or borders are: the graph stays as it is."""
    model = build_graph(copies=4)
    before = model.SerializeToString()

    assert not pad_planes(model)

    assert model.SerializeToString() == before
