"""Equal ranges for channels that convolutions add up and hand on without an activation, as inverted residuals do.

Where nothing but sums lies between convolutions, channels can be scaled exactly: by the weights of all that make them,
and back by those of all that take them: for such groups what ``converter.int8.weights.equalise`` does for pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from converter.graph.edit import Graph
from converter.int8.weights.equalise import (
    SMALLEST_SHARE,
    STRENGTH,
    divide_channels,
    is_convolution,
    is_depthwise,
    is_plain_convolution,
    measure_channels,
)


@dataclass
class Group:
    """Tensors that sums tie together, so that they share the scale of their channels."""

    tensors: list[str] = field(default_factory=list)
    makers: list[onnx.NodeProto] = field(default_factory=list)
    takers: list[onnx.NodeProto] = field(default_factory=list)


def equalise_bottlenecks(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> int:
    """Equalises the channels of what convolutions and sums make and convolutions take, in place.

    Args:
        model: the float graph, canonical (``converter.graph.edit``).
        pixels: slices to measure ranges on, uint8 [N, height, width, channels].

    Returns:
        How many groups of tensors were changed.
    """
    graph = Graph(model)
    groups = list(find_groups(graph))
    if not groups:
        return 0
    largest = measure_channels(model, [name for group in groups for name in group.tensors], pixels)
    for group in groups:
        values = np.max([largest[name] for name in group.tensors], axis=0).astype(np.float64)
        values = np.maximum(values, SMALLEST_SHARE * values.max())
        if values.all():
            factors = (values / np.exp(np.log(values).mean())) ** STRENGTH
            divide_channels(graph, group.makers, group.takers, factors)
    graph.remove_unused()
    return len(groups)


def find_groups(graph: Graph) -> Iterator[Group]:
    """The groups of which all makers and takers are known, each once."""
    outputs = {output.name for output in graph.model.graph.output}
    seen: set[str] = set()
    for node in graph.nodes:
        if is_convolution(graph, node, inputs=3) and node.output[0] not in seen:
            group = gather_group(graph, node.output[0], outputs)
            if group is not None:
                seen |= set(group.tensors)
                yield group


def gather_group(graph: Graph, tensor: str, outputs: set[str]) -> Group | None:
    """All that sums tie to a tensor; None where something else than convolutions makes or takes any of it."""
    group, waiting = Group(), [tensor]
    while waiting:
        name = waiting.pop()
        if name in group.tensors:
            continue
        group.tensors.append(name)
        maker, takers = graph.find_maker(name), graph.find_takers(name)
        if maker is None or not takers or name in outputs:
            return None
        if maker.op_type == "Add":
            waiting += maker.input
        elif is_convolution(graph, maker, inputs=3):
            group.makers.append(maker)
        else:
            return None
        for taker in takers:
            if taker.op_type == "Add":
                waiting += taker.output
            elif is_plain_convolution(graph, taker, inputs=2) or is_depthwise(graph, taker):
                group.takers.append(taker)
            else:
                return None
    return group
