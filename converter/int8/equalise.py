"""Equal ranges for the channels between two convolutions, so that 256 levels for all of them are enough for each.

Activations have one scale a tensor, so a channel whose values are a tenth of another's gets a tenth of the levels. ReLU
and pooling by maximum let a positive factor through: dividing a channel by it before, and multiplying the weights that
take the channel by it after, changes no answer. Half of the way is gone (the square root), since factors that help the
activations make the weights behind them uneven. After Nagel et al., Data-Free Quantization Through Weight Equalization
and Bias Correction (ICCV 2019), with the ranges measured rather than derived from the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from converter.graph.edit import Graph, read_attributes
from server.models.contract import INPUT_NAME

STRENGTH = 0.5
SMALLEST_SHARE = 1e-3
"""Of the largest channel: what a channel counts at least, so that a dead one is not blown up."""


def equalise_channels(model: onnx.ModelProto, pixels: Iterable[NDArray[np.uint8]]) -> int:
    """Equalises the channels between convolutions, in place.

    Args:
        model: the float graph, canonical (``converter.graph.edit``).
        pixels: slices to measure ranges on, each uint8 [height, width, channels].

    Returns:
        How many pairs of convolutions were changed.
    """
    graph = Graph(model)
    pairs = list(find_pairs(graph))
    if not pairs:
        return 0
    largest = measure_channels(model, [relu for _, relu, _ in pairs], pixels)
    for first, relu, second in pairs:
        values = np.maximum(largest[relu], SMALLEST_SHARE * largest[relu].max())
        factors = (values / np.exp(np.log(values).mean())) ** STRENGTH if values.all() else np.ones(len(values))
        scale_constant(graph, first, 1, (1 / factors)[:, np.newaxis, np.newaxis, np.newaxis])
        scale_constant(graph, first, 2, 1 / factors)
        scale_constant(graph, second, 1, factors[np.newaxis, :, np.newaxis, np.newaxis])
    graph.remove_unused()
    return len(pairs)


def find_pairs(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str, onnx.NodeProto]]:
    """Convolutions with ReLU, and perhaps a maximum, and nothing else between them: first, ReLU's output, second."""
    for first in graph.nodes:
        relu = graph.follow(first.output[0]) if is_plain_convolution(graph, first, inputs=3) else None
        if relu is None or relu.op_type != "Relu":
            continue
        taker = graph.follow(relu.output[0])
        if taker is not None and taker.op_type == "MaxPool":
            taker = graph.follow(taker.output[0])
        if taker is not None and is_plain_convolution(graph, taker, inputs=2):
            yield first, relu.output[0], taker


def is_plain_convolution(graph: Graph, node: onnx.NodeProto, *, inputs: int) -> bool:
    """Whether a node is a convolution over all channels, with constants for at least so many of its inputs."""
    return (
        node.op_type == "Conv"
        and read_attributes(node).get("group", 1) == 1
        and len(node.input) >= inputs
        and all(graph.read_constant(name) is not None for name in node.input[1:])
    )


def measure_channels(
    model: onnx.ModelProto, tensors: list[str], pixels: Iterable[NDArray[np.uint8]]
) -> dict[str, NDArray[np.float32]]:
    """The largest value of each channel of each tensor [N, C, H, W]."""
    watched = copy.deepcopy(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    data = watched.SerializeToString()
    del watched
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    del data
    largest: dict[str, NDArray[np.float32]] = {}
    for image in pixels:
        for name, values in zip(tensors, session.run(tensors, {INPUT_NAME: image[np.newaxis]}), strict=True):
            found = values.max(axis=(0, 2, 3))
            largest[name] = np.maximum(largest.get(name, found), found)
    return largest


def scale_constant(graph: Graph, node: onnx.NodeProto, position: int, factors: NDArray[np.float64]) -> None:
    """Gives a node its own, scaled copy of a constant."""
    value = graph.read_constant(node.input[position])
    assert value is not None  # `is_plain_convolution` has looked
    name = f"{node.input[position]}_{node.name}_equalised"
    node.input[position] = graph.add_constant(name, (value * factors).astype(np.float32))
