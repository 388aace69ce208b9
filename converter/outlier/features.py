"""What tells an image that a model knows from others, as part of its graph.

Measured (``python -m bench.outliers --features …``, docs/results.md): the penultimate layer of a classifier that was
trained on one kind of image has forgotten what makes other kinds different. What catches them is further down: how
bright each part of the image is, and how strongly each channel of a middle feature map answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from converter.errors import SourceError
from converter.graph.edit import Graph
from server.models.contract import INPUT_NAME, OUTPUT_NAME

GRID, MAP, PENULTIMATE = "grid", "map", "penultimate"
FEATURES = (GRID, MAP, PENULTIMATE)
CHOSEN = (GRID, MAP)

CELLS = 8
"""Parts of the image a side, whose brightness is looked at."""

SAMPLES = 64
"""About so many rows of the image are looked at for that. All of their columns are: single pixels of a row cost more
than the row."""

LARGEST_SHARE = 9
"""A map is in the middle of a network where it has at least a ninth of the image's rows: the last of these is taken.
Larger ones cost more time, and smaller ones know less."""

PREFIX = "outlier_"
"""Of the names of all that is added."""

LEAST_OPSET = 13


class Additions:
    """Nodes and constants that are added to a graph, under names of their own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Begins to add to a model.

        Raises:
            SourceError: its operator set is too old.
        """
        self.model = model
        self.graph = Graph(model)
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        if self.opset < LEAST_OPSET:
            raise SourceError(f"an outlier score needs --opset {LEAST_OPSET} or newer, the graph has {self.opset}")

    def add(self, kind: str, name: str, *inputs: str, **attributes: object) -> str:
        """Adds a node, and returns the name of its output, which is also its own."""
        name = PREFIX + name
        self.model.graph.node.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        """Adds a constant, and returns its name."""
        return self.graph.add_constant(PREFIX + name, np.asarray(value, dtype))

    def reduce(self, kind: str, name: str, tensor: str, axes: Sequence[int]) -> str:
        """Adds a reduction that drops the axes; they became an input in operator set 18."""
        if self.opset >= 18:
            return self.add(kind, name, tensor, self.constant(f"{name}_axes", axes, np.int64), keepdims=0)
        return self.add(kind, name, tensor, axes=list(axes), keepdims=0)


def add_features(additions: Additions, kinds: Sequence[str] = CHOSEN) -> tuple[str, list[str]]:
    """Adds a tensor of features, float32 [N, D]. Returns its name, and those of the parts that it is made of.

    Args:
        additions: to the model, in fp32 or quantised with QuantizeLinear and DequantizeLinear.
        kinds: which, of ``FEATURES``. A graph without a convolution has no ``MAP``, one without a dense layer no
            ``PENULTIMATE``.
    """
    shapes = read_shapes(additions.model)
    found: list[str] = []
    if GRID in kinds:
        found.append(add_grid(additions, shapes[INPUT_NAME]))
    if MAP in kinds and (taken := find_map(additions.graph, shapes)):
        found.append(additions.reduce("ReduceMean", "map_means", taken, (2, 3)))
    if PENULTIMATE in kinds and (taken := find_penultimate(additions.graph)):
        found.append(taken)
    if not found:
        raise SourceError(f"the graph has no features of the kinds {', '.join(kinds)}")
    return (found[0] if len(found) == 1 else additions.add("Concat", "features", *found, axis=1)), found


def read_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The sizes of all tensors, 0 where they are not fixed."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.value_info, *graph.output)
    }


def add_grid(additions: Additions, shape: Sequence[int]) -> str:
    """Adds the brightness of 8 x 8 parts of the image, float32 [N, 64].

    Of three channels it is that of the middle one, as in ``server.images.checks``.
    """
    height, width, channels = shape[1:]
    step = max(1, height // SAMPLES)
    each = (height // step // CELLS, width // CELLS)
    samples = take(additions, INPUT_NAME, 1, (height - each[0] * CELLS * step) // 2 + step // 2, each[0] * CELLS, step)
    if width % CELLS:
        samples = take(additions, samples, 2, width % CELLS // 2, each[1] * CELLS)
    if channels > 1:
        samples = take(additions, samples, 3, channels // 2, 1)
    values = additions.add("Cast", "grid_values", samples, to=onnx.TensorProto.FLOAT)
    cells = additions.constant("grid_cells", (-1, CELLS, each[0], CELLS, each[1]), np.int64)
    means = additions.reduce("ReduceMean", "grid_means", additions.add("Reshape", "grid_parts", values, cells), (2, 4))
    return additions.add("Reshape", "grid", means, additions.constant("grid_row", (-1, CELLS * CELLS), np.int64))


def take(additions: Additions, tensor: str, axis: int, first: int, count: int, step: int = 1) -> str:
    """Adds what takes so many slices of a tensor. Each axis that is cut costs more than those that are not."""
    name = f"grid_samples_{axis}"
    bounds = (("starts", first), ("ends", first + (count - 1) * step + 1), ("axes", axis), ("steps", step))
    values = [additions.constant(f"{name}_{what}", [value], np.int64) for what, value in bounds]
    return additions.add("Slice", name, tensor, *values)


def find_map(graph: Graph, shapes: dict[str, list[int]]) -> str | None:
    """What the last convolution takes that works on a map of at least a ninth of the image's rows."""
    rows = shapes[INPUT_NAME][1]
    found = None
    for node in graph.nodes:
        shape = shapes.get(node.input[0], []) if node.op_type == "Conv" else []
        if len(shape) == 4 and shape[2] * LARGEST_SHARE >= rows:
            found = str(node.input[0])
    return found


def find_penultimate(graph: Graph) -> str | None:
    """What the last dense layer takes: back from the probabilities, by way of activations, sums and joints."""
    node = graph.find_maker(OUTPUT_NAME)
    while node is not None:
        if node.op_type in ("Gemm", "MatMul") and graph.read_constant(node.input[1]) is not None:
            return str(node.input[0])
        makers = [maker for name in node.input if (maker := graph.find_maker(name)) is not None]
        node = makers[-1] if makers else None
    return None
