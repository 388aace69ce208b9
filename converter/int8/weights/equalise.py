"""Equal ranges for the channels between two convolutions, so that 256 levels for all of them are enough for each.

Activations have one scale a tensor, so a channel whose values are a tenth of another's gets a tenth of the levels. ReLU
and pooling by maximum let a positive factor through: dividing a channel by it before, and multiplying the weights that
take the channel by it after, changes no answer. Half of the way is gone (the square root), since factors that help the
activations make the weights behind them uneven. After Nagel et al., Data-Free Quantization Through Weight Equalization
and Bias Correction (ICCV 2019), with the ranges measured rather than derived from the weights.

ReLU that ends at 6 lets no factor through where it ends. But a channel that never comes near to it can be made larger,
until its largest value, and some room, is there: then only values beyond all that were seen are cut, as any range cuts
them. A depthwise convolution behind it has weights of their own scale for each channel, so that there the whole way can
be gone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from converter.graph.edit import Graph, read_attributes
from server.models.contract import INPUT_NAME

STRENGTH = 0.5
ROOM = 0.25
"""Beyond the largest value that was seen, before an activation that ends cuts it."""

SMALLEST_SHARE = 1e-3
"""Of the largest channel: what a channel counts at least, so that a dead one is not blown up."""


@dataclass(frozen=True)
class Pair:
    """Two convolutions with an activation, and perhaps a maximum, and nothing else between them."""

    first: onnx.NodeProto
    activation: str
    """What it gives on."""

    second: onnx.NodeProto
    limit: float | None
    """Where the activation ends; None: nowhere."""

    is_depthwise: bool
    """Whether the second one has weights of its own for each channel."""

    def choose_factors(self, largest: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each channel is divided by, from its largest value."""
        values = np.maximum(largest.astype(np.float64), SMALLEST_SHARE * largest.max())
        if not values.all():
            return np.ones(len(values))
        strength = 1.0 if self.is_depthwise else STRENGTH
        if self.limit is None:
            shares = values / np.exp(np.log(values).mean())
        else:
            shares = np.minimum(values * (1 + ROOM) / self.limit, 1.0)
        factors: NDArray[np.float64] = shares**strength
        return factors


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
    largest = measure_channels(model, [pair.activation for pair in pairs], pixels)
    for pair in pairs:
        divide_channels(graph, [pair.first], [pair.second], pair.choose_factors(largest[pair.activation]))
    graph.remove_unused()
    return len(pairs)


def divide_channels(
    graph: Graph, makers: Iterable[onnx.NodeProto], takers: Iterable[onnx.NodeProto], factors: NDArray[np.float64]
) -> None:
    """Divides the channels that some convolutions make, and takes that back in the weights of those that take them."""
    for node in makers:
        scale_constant(graph, node, 1, (1 / factors)[:, np.newaxis, np.newaxis, np.newaxis])
        scale_constant(graph, node, 2, 1 / factors)
    for node in takers:
        # Depthwise weights are [channels, 1, height, width], all others [filters, channels, height, width].
        shape = (-1, 1, 1, 1) if is_depthwise(graph, node) else (1, -1, 1, 1)
        scale_constant(graph, node, 1, factors.reshape(shape))


def find_pairs(graph: Graph) -> Iterator[Pair]:
    """The pairs of convolutions between which channels can be scaled."""
    for first in graph.nodes:
        if not is_convolution(graph, first, inputs=3):
            continue
        activation = graph.follow(first.output[0])
        if activation is None or activation.op_type not in ("Relu", "Clip"):
            continue
        limit = read_limit(graph, activation)
        if activation.op_type == "Clip" and limit is None:
            continue
        taker = graph.follow(activation.output[0])
        if taker is not None and taker.op_type == "MaxPool":
            taker = graph.follow(taker.output[0])
        if taker is None:
            continue
        if is_plain_convolution(graph, taker, inputs=2) or is_depthwise(graph, taker):
            yield Pair(first, activation.output[0], taker, limit, is_depthwise(graph, taker))


def read_limit(graph: Graph, activation: onnx.NodeProto) -> float | None:
    """Where a Clip from zero ends; None for anything else."""
    if activation.op_type != "Clip" or len(activation.input) != 3:
        return None
    low, high = (graph.read_constant(name) for name in activation.input[1:])
    if low is None or high is None or low != 0 or not high > 0:
        return None
    return float(high)


def is_convolution(graph: Graph, node: onnx.NodeProto, *, inputs: int) -> bool:
    """Whether a node is a convolution over all channels, or each alone, with constants for at least so many inputs."""
    return is_plain_convolution(graph, node, inputs=inputs) or (
        is_depthwise(graph, node) and len(node.input) >= inputs and graph.read_constant(node.input[-1]) is not None
    )


def is_depthwise(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is a convolution of each channel alone, by constant weights."""
    weights = graph.read_constant(node.input[1]) if node.op_type == "Conv" else None
    if weights is None:
        return False
    groups: int = read_attributes(node).get("group", 1)
    return weights.shape[1] == 1 and len(weights) == groups > 1


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
    """The largest absolute value of each channel of each tensor [N, C, H, W]."""
    watched = copy.deepcopy(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    data = watched.SerializeToString()
    del watched
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    del data
    largest: dict[str, NDArray[np.float32]] = {}
    for image in pixels:
        for name, values in zip(tensors, session.run(tensors, {INPUT_NAME: image[np.newaxis]}), strict=True):
            found = np.abs(values).max(axis=(0, 2, 3))
            largest[name] = np.maximum(largest.get(name, found), found)
    return largest


def scale_constant(graph: Graph, node: onnx.NodeProto, position: int, factors: NDArray[np.float64]) -> None:
    """Gives a node its own, scaled copy of a constant."""
    value = graph.read_constant(node.input[position])
    assert value is not None  # `is_plain_convolution` has looked
    name = f"{node.input[position]}_{node.name}_equalised"
    node.input[position] = graph.add_constant(name, (value * factors).astype(np.float32))
