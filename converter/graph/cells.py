"""Where in the image the cells of a feature map lie, by the kernels, strides and borders on the way to it.

Convolutions without padding give the border no cells, and strides shift what cells see: if its map was simply stretched
over the image, that of the paper's CNN would show a place up to 14 of 256 pixels beside where it is.
"""

from __future__ import annotations

import onnx

from converter.graph.edit import Graph, read_attributes
from server.models.contract import INPUT_NAME

Shapes = dict[str, tuple[int, ...]]

PLAIN = {"Add", "Sub", "Mul", "Div", "Relu", "Clip", "Cast", "Transpose", "Concat", "Gather", "Identity"}
"""Operators that leave every place where it is."""


def find_area(graph: Graph, shapes: Shapes, tensor: str) -> list[float]:
    """Returns which part of the image the cells of a feature map share out evenly.

    Args:
        graph: the whole graph.
        shapes: of its tensors.
        tensor: float32 [N, C, rows, columns].

    Returns:
        Left, top, right and bottom, in pixels; beyond the image where padding shifts the cells. The whole image where
        something else than convolutions and pooling lies on the way.
    """
    _, height, width, _ = shapes[INPUT_NAME]
    counts = shapes[tensor][2:]
    steps, middles = [1.0, 1.0], [0.0, 0.0]  # of the cells in pixels, and of the first one
    while tensor != INPUT_NAME:
        node = graph.find_maker(tensor)
        if node is None:
            return [0.0, 0.0, float(width), float(height)]
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            kernel, attributes = read_kernel(graph, node), read_attributes(node)
            pads = read_padding(node, shapes, kernel)
            if pads is None:
                return [0.0, 0.0, float(width), float(height)]
            strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
            for axis in (0, 1):
                steps[axis] *= strides[axis]
                reach = dilations[axis] * (kernel[axis] - 1) / 2 - pads[axis]
                middles[axis] = middles[axis] * strides[axis] + reach
        elif node.op_type == "Pad":
            amounts = graph.read_constant(node.input[1]) if len(node.input) > 1 else None
            if amounts is None or len(amounts) != 8:
                return [0.0, 0.0, float(width), float(height)]
            middles = [middle - float(amount) for middle, amount in zip(middles, amounts[2:4], strict=True)]
        elif node.op_type not in PLAIN:
            return [0.0, 0.0, float(width), float(height)]
        tensor = next(name for name in node.input if name in shapes)  # branches that are added have the same cells
    starts = [middle + 0.5 - step / 2 for middle, step in zip(middles, steps, strict=True)]
    ends = [start + count * step for start, count, step in zip(starts, counts, steps, strict=True)]
    return [starts[1], starts[0], ends[1], ends[0]]


def read_kernel(graph: Graph, node: onnx.NodeProto) -> tuple[int, ...]:
    """The size of the windows of a convolution, of which its weights may tell it, or of pooling; empty: unknown."""
    if "kernel_shape" in (attributes := read_attributes(node)):
        return tuple(attributes["kernel_shape"])
    weights = graph.read_constant(node.input[1]) if len(node.input) > 1 else None
    return () if weights is None else weights.shape[2:]


def read_padding(node: onnx.NodeProto, shapes: Shapes, kernel: tuple[int, ...]) -> list[int] | None:
    """The padding of a convolution or pooling of two dimensions: top, left, bottom, right; None: it cannot be told."""
    attributes = read_attributes(node)
    if len(kernel) != 2:
        return None
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode == b"NOTSET":
        return list(attributes.get("pads", [0, 0, 0, 0]))
    if mode == b"VALID":
        return [0, 0, 0, 0]
    sizes, made = shapes.get(node.input[0], ())[2:], shapes.get(node.output[0], ())[2:]
    if not (len(sizes) == len(made) == 2 and all((*sizes, *made))):
        return None
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    begins, ends = [], []
    for axis in (0, 1):
        total = max(0, (made[axis] - 1) * strides[axis] + dilations[axis] * (kernel[axis] - 1) + 1 - sizes[axis])
        smaller, larger = total // 2, total - total // 2
        begins.append(smaller if mode == b"SAME_UPPER" else larger)
        ends.append(larger if mode == b"SAME_UPPER" else smaller)
    return [*begins, *ends]
