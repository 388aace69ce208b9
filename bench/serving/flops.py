"""Counts the arithmetic of an ONNX graph from its shapes: multiplications and additions of convolutions and matrices.

Everything else (activations, pooling, casts) is below one per cent of these networks. Counted on the fp32 graph, also
for int8: what a quantised variant adds in padding is no useful work.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import onnx
from onnx import shape_inference


def count_flops(path: Path) -> int:
    """Returns the floating-point operations for one image; a multiply-add counts as two.

    Raises:
        ValueError: the shape of an operand cannot be inferred.
    """
    model = onnx.load(path)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    return sum(count_node(node, shapes) for node in graph.node)


def count_node(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    """Floating-point operations of one node."""
    if node.op_type == "Conv":
        _, *per_output = known_shape(shapes, node.input[1])  # [outputs, inputs / groups, kernel height, width]
        return 2 * prod(known_shape(shapes, node.output[0])) * prod(per_output)
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        inner = known_shape(shapes, node.input[0])[0 if transposed else -1]
        return 2 * prod(known_shape(shapes, node.output[0])) * inner
    return 0


def known_shape(shapes: dict[str, list[int]], name: str) -> list[int]:
    """The shape of a tensor, without unknown dimensions."""
    shape = shapes.get(name, [])
    if not shape or 0 in shape:
        raise ValueError(f"the shape of {name} is not known: {shape}")
    return shape
