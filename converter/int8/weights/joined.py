"""One range for what is joined, so that joining tensors copies their bytes and rescales none.

For what two merged convolutions take (``converter.graph.shortcuts``): one of the two tensors comes from a convolution
and ReLU of its own, which can make its values larger or smaller as long as the weights behind take that back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from converter.graph.edit import Graph
from converter.graph.shortcuts import JOINED
from converter.int8.weights.equalise import is_plain_convolution, measure_channels, scale_constant

MOST_SLICES = 32
"""Slices that the largest values are measured on: ranges are measured again, on all, when they are calibrated."""


def find_joined(graph: Graph) -> list[onnx.NodeProto]:
    """The nodes that join what merged convolutions take."""
    return [node for node in graph.nodes if node.op_type == "Concat" and node.name.endswith(JOINED)]


def balance_joined(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> int:
    """Brings tensors that are joined to the same largest value where ReLU lets a factor through, in place.

    Args:
        model: the float graph, canonical (``converter.graph.edit``).
        pixels: slices to measure on, uint8 [N, height, width, channels].

    Returns:
        How many tensors were scaled.
    """
    graph = Graph(model)
    found = list(find_scalable(graph))
    if not found:
        return 0
    every = -(-len(pixels) // MOST_SLICES)
    names = sorted({name for join, _, _, _ in found for name in join.input})
    largest = {name: float(values.max()) for name, values in measure_channels(model, names, pixels[::every]).items()}
    for join, place, first, merged in found:
        own, other = (largest[join.input[at]] for at in (place, 1 - place))
        if min(own, other) <= 0:
            continue  # nothing that a factor could change
        factor = other / own
        width, channels = (read_shape(graph, node)[axis] for node, axis in ((first, 0), (merged, 1)))
        taken_back = np.ones((1, channels, 1, 1))
        taken_back[:, slice(0, width) if place == 0 else slice(-width, None)] = 1 / factor
        for position in range(1, len(first.input)):
            scale_constant(graph, first, position, np.array(factor))
        scale_constant(graph, merged, 1, taken_back)
    graph.remove_unused()
    return len(found)


def find_scalable(graph: Graph) -> Iterator[tuple[onnx.NodeProto, int, onnx.NodeProto, onnx.NodeProto]]:
    """Joins, the place in them of a tensor that only they take, its convolution, and the one that takes the join."""
    for join in find_joined(graph):
        merged = graph.follow(join.output[0])
        for place, name in enumerate(join.input):
            relu = graph.find_maker(name)
            first = graph.find_maker(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
            if (
                first is not None
                and merged is not None
                and graph.follow(name) is join
                and graph.follow(first.output[0]) is relu
                and is_plain_convolution(graph, first, inputs=2)
            ):
                yield join, place, first, merged
                break


def read_shape(graph: Graph, convolution: onnx.NodeProto) -> tuple[int, ...]:
    """Of the weights: filters, channels, height, width."""
    weights = graph.read_constant(convolution.input[1])
    assert weights is not None  # `is_plain_convolution` has looked, and `merge_shortcuts` has made them
    return weights.shape


def share_ranges(model: onnx.ModelProto, ranges: Any) -> None:
    """Gives what is joined, and what a maximum takes it from, the range of the join, in place.

    Args:
        model: the float graph.
        ranges: from ``converter.int8.ranges.Ranges``.
    """
    graph = Graph(model)
    for join in find_joined(graph):
        for name in join.input:
            tensor: str | None = name
            while tensor is not None:
                if tensor in ranges:
                    ranges[tensor] = ranges[join.output[0]]
                maker = graph.find_maker(tensor)
                tensor = maker.input[0] if maker is not None and maker.op_type == "MaxPool" else None
