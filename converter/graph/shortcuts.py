"""Projection shortcuts, merged with the convolution that they are added to.

Where a residual block changes the number of channels, as in ResNet, the sum of two 1 x 1 convolutions is one 1 x 1
convolution on the channels of both: the same products are summed. In integers nothing is rounded to 256 levels between
them any more, and one addition of two large tensors is saved.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from converter.graph.edit import Graph, read_attributes

JOINED = "_joined"
"""Ends the name of the Concat that joins what two merged convolutions took."""


def merge_shortcuts(model: onnx.ModelProto, outside: Collection[str] = ()) -> bool:
    """Merges two 1 x 1 convolutions that nothing but their sum takes.

    A stride is taken out of the convolutions: they, and others of 1 x 1 with the same stride on the same tensor, take
    every second row and column of it, which a maximum over 1 x 1 gives.

    Args:
        model: the float graph, canonical, with inferred shapes.
        outside: nodes whose results are not to be joined.

    Returns:
        Whether there were any.
    """
    graph = Graph(model)
    shapes = {info.name: info.type.tensor_type.shape for info in model.graph.value_info}
    is_changed = False
    for add in [node for node in graph.nodes if node.op_type == "Add"]:
        pair = [node for node in map(graph.find_maker, add.input) if node is not None]
        makers = [graph.find_maker(node.input[0]) for node in pair]
        first, second = (shapes.get(name) for name in add.input)
        if (
            len(pair) != 2
            or first is None
            or first != second  # one would be repeated
            or not all(is_pointwise(graph, node) and graph.follow(node.output[0]) is not None for node in pair)
            or any(maker is None or maker.name in outside for maker in makers)
        ):
            continue
        taken = [take_strided(graph, node) for node in pair]
        weights, biases = zip(*(read_weights(graph, node) for node in pair), strict=True)
        merged = graph.add_constant(f"{add.name}_merged_weights", np.concatenate(weights, axis=1))
        bias = graph.add_constant(f"{add.name}_merged_bias", np.add(*biases))
        joined = f"{add.name}{JOINED}"
        graph.replace(
            [add],
            [
                helper.make_node("Concat", taken, [joined], name=joined, axis=1),
                helper.make_node("Conv", [joined, merged, bias], add.output, name=add.name, kernel_shape=[1, 1]),
            ],
        )
        graph.remove_unused()
        is_changed = True
    return is_changed


def is_pointwise(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is a plain convolution of 1 x 1 with constant weights."""
    attributes = read_attributes(node)
    weights = graph.read_constant(node.input[1]) if node.op_type == "Conv" else None
    return (
        weights is not None
        and weights.shape[2:] == (1, 1)
        and attributes.get("group", 1) == 1
        and not any(attributes.get("pads", ()))
        and all(graph.read_constant(name) is not None for name in node.input[2:])
    )


def read_weights(graph: Graph, convolution: onnx.NodeProto) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and bias of a convolution; the bias is zero where it has none."""
    weights, *bias = (graph.read_constant(name) for name in convolution.input[1:])
    assert weights is not None  # `is_pointwise` has looked
    return weights, bias[0] if bias and bias[0] is not None else np.zeros(len(weights), np.float32)


def take_strided(graph: Graph, node: onnx.NodeProto) -> str:
    """The tensor that a convolution of 1 x 1 takes once its stride is taken out of it; the same for its siblings."""
    source: str = node.input[0]
    strides = read_attributes(node).get("strides", [1, 1])
    if strides == [1, 1]:
        return source
    every = f"{source}_every_{strides[0]}_{strides[1]}"
    siblings = [taker for taker in graph.find_takers(source) if is_pointwise(graph, taker)]
    siblings = [taker for taker in siblings if read_attributes(taker).get("strides") == strides]
    step = helper.make_node("MaxPool", [source], [every], name=every, kernel_shape=[1, 1], strides=strides)
    graph.nodes.insert(min(list(graph.nodes).index(taker) for taker in siblings), step)
    for taker in siblings:
        taker.input[0] = every
        for attribute in [item for item in taker.attribute if item.name == "strides"]:
            taker.attribute.remove(attribute)
    return every
