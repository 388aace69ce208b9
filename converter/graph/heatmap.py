"""HiResCAM in closed form: a graph that says, beside its answer, where in the image the evidence lies.

HiResCAM (Draelos and Carin, 2020) is the ReLU of the sum over channels of feature map times gradient. The gradient of
the log-odds of the positive labels needs no automatic differentiation: from there back to a feature map there are dense
layers, whose gradient is their weights; ReLU, whose gradient is 1 where it lets something pass; pooling and
convolutions, whose gradients ONNX has operators for. All of it is written into the graph behind what is there already.

Global average pooling and flattening lead to the last feature map. Where that has too few cells to show a place (the
paper's CNN ends with 2 x 2), it goes on through convolutions and maxima until one has enough.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from converter.graph.cells import find_area, read_padding
from converter.graph.edit import Graph, read_attributes
from server.errors import ModelFileError
from server.models.contract import HEATMAP_KEY, HEATMAP_NAME, METADATA_KEY, OUTPUT_NAME, ModelSpec

LEAST_CELLS = 16
"""Rows and columns of a heatmap that show a place. On synthetic slices the strongest cell of the paper's CNN lies
within 16 pixels of the lesion 32 times in 100 with 2 x 2 cells, 58 times with 12 x 12, and 72 times with the 28 x 28
that this gives; 60 x 60 gain three more, at 20 % of the time of a plain answer instead of 6 %."""

NEVER = -1e30
"""Added to a logit, it leaves nothing of its class in a softmax."""


def add_heatmap(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Returns a graph with the outputs ``OUTPUT_NAME`` and ``HEATMAP_NAME``, or None where this is no such network.

    Args:
        model: float32, canonical (``converter.graph.edit``), with the spec in its metadata. It is not changed.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    try:
        spec = ModelSpec.from_json(metadata.get(METADATA_KEY, ""))
    except ModelFileError:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for output in [output for output in copy.graph.output if output.name != OUTPUT_NAME]:
        copy.graph.output.remove(output)  # such as an outlier score: the model's own file has it
    graph = Graph(copy)
    graph.remove_unused()
    back = BackwardPass(graph, read_shapes(copy))
    if not back.start(np.isin(spec.labels, spec.positive_labels)):
        return None
    found = back.find_map()
    if found is None:
        return None
    weighted, total = back.add("Mul", list(found)), graph.add_constant(f"{HEATMAP_NAME}_channels", np.array([1]))
    evidence = back.add("ReduceSum", [weighted, total], keepdims=0)
    graph.nodes.append(helper.make_node("Relu", [evidence], [HEATMAP_NAME], name=HEATMAP_NAME))
    _, _, rows, columns = back.shapes[found[0]]
    copy.graph.output.append(helper.make_tensor_value_info(HEATMAP_NAME, onnx.TensorProto.FLOAT, ["N", rows, columns]))
    graph.remove_unused()
    area = find_area(graph, back.shapes, found[0])
    helper.set_model_props(copy, {**metadata, HEATMAP_KEY: json.dumps({"area": area})})
    onnx.checker.check_model(copy, full_check=True)
    return copy


def read_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors by name, as far as they are known; 0 where any size goes."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in (*inferred.value_info, *inferred.input, *inferred.output)
        if info.type.tensor_type.HasField("shape")
    }


class BackwardPass:
    """Goes from the answer towards the image, and adds the nodes that compute the gradient on the way.

    Attributes:
        shapes: of the graph's tensors.
    """

    def __init__(self, graph: Graph, shapes: dict[str, tuple[int, ...]]) -> None:
        self._graph = graph
        self.shapes = shapes
        self._tensor = ""
        """How far it has come."""

        self._gradient = ""
        """With respect to that: a tensor of its shape, or one that is broadcast to it."""

        self._count = 0

    def add(self, kind: str, inputs: list[str], **attributes: object) -> str:
        """Adds a node with one output, and returns the name of that."""
        self._count += 1
        name = f"{HEATMAP_NAME}_{kind}_{self._count}"
        self._graph.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, value: NDArray[np.generic]) -> str:
        self._count += 1
        return self._graph.add_constant(f"{HEATMAP_NAME}_constant_{self._count}", value)

    def start(self, positive: NDArray[np.bool_]) -> bool:
        """Goes from the probabilities to the logits. Returns whether they are made as the converter makes them.

        The gradient is that of the log-odds of the positive labels, log p / (1 - p): what is added to all logits alike
        changes no probability, and has no part in it. Where p is the sum of some outputs of a softmax, the log-odds are
        the logarithm of the sum of exp over their logits, less that over the others', and the gradient of each of the
        two is a softmax of these logits alone.

        Args:
            positive: [classes], which of them are positive; some are, and some are not.
        """
        classes = len(positive)
        end = self._graph.find_maker(OUTPUT_NAME)
        if end is not None and end.op_type == "Softmax" and read_attributes(end).get("axis", -1) in (-1, 1):
            self._tensor = end.input[0]
            if classes == 2:
                self._gradient = self._constant(np.where(positive, 1, -1).astype(np.float32)[np.newaxis])
            else:
                others = self._share_out(~positive)
                self._gradient = self.add("Sub", [self._share_out(positive), others])
            return True
        if end is None or end.op_type != "Concat" or len(end.input) != 2 or classes != 2:
            return False
        sigmoid, rest = self._graph.find_maker(end.input[1]), self._graph.find_maker(end.input[0])
        if sigmoid is None or sigmoid.op_type != "Sigmoid" or rest is None or rest.op_type != "Sub":
            return False
        self._tensor = sigmoid.input[0]
        self._gradient = self._constant(np.array([[1.0 if positive[1] else -1.0]], np.float32))
        return bool(rest.input[1] == end.input[1])

    def _share_out(self, chosen: NDArray[np.bool_]) -> str:
        """A softmax of some of the logits, 0 for the others; float32 [N or 1, classes]."""
        if chosen.sum() == 1:
            return self._constant(chosen.astype(np.float32)[np.newaxis])
        left_out = self._constant(NEVER * (~chosen).astype(np.float32)[np.newaxis])
        return self.add("Softmax", [self.add("Add", [self._tensor, left_out])], axis=-1)

    def find_map(self) -> tuple[str, str] | None:
        """Goes on to a feature map, float32 [N, C, h, w], with enough cells, otherwise to that with most of them.

        Returns:
            Its name and that of its gradient; None: there is none that it can get to.
        """
        best, cells = None, 0
        while True:
            maker = self._graph.find_maker(self._tensor)
            shape = self.shapes.get(self._tensor, ())
            # A transposition leads to or from channels last.
            if len(shape) == 4 and all(shape[1:]) and maker is not None and maker.op_type != "Transpose":
                if shape[2] * shape[3] > cells:
                    best, cells = (self._tensor, self._gradient), shape[2] * shape[3]
                if min(shape[2:]) >= LEAST_CELLS:
                    return best
            if maker is None or not self._step(maker):
                return best

    def _step(self, node: onnx.NodeProto) -> bool:
        """Goes through the node that makes the tensor at hand. Returns False where it cannot."""
        gradient = None
        if node.input and node.input[0] in self.shapes and node.output[0] in self.shapes:
            rule = getattr(self, f"_through_{node.op_type}", None)
            gradient = rule(node) if rule is not None else None
        if gradient is None:
            return False
        self._tensor, self._gradient = node.input[0], gradient
        return True

    def _through_Identity(self, node: onnx.NodeProto) -> str | None:  # noqa: N802  # named as the operators
        return self._gradient

    def _through_Relu(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        return self.add("Mul", [self._gradient, self.add("Sign", [node.output[0]])])

    def _through_Add(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        has_constant = self._graph.read_constant(node.input[1]) is not None
        return self._gradient if has_constant and self._keeps_shape(node) else None

    _through_Sub = _through_Add  # noqa: N815

    def _through_Mul(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        if self._graph.read_constant(node.input[1]) is None or not self._keeps_shape(node):
            return None
        return self.add(node.op_type, [self._gradient, node.input[1]])

    _through_Div = _through_Mul  # noqa: N815

    def _through_Gemm(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        weights, attributes = self._graph.read_constant(node.input[1]), read_attributes(node)
        if weights is None or weights.ndim != 2 or attributes.get("transA", 0):
            return None
        back = weights if attributes.get("transB", 0) else weights.T
        return self.add("MatMul", [self._gradient, self._constant(attributes.get("alpha", 1.0) * back)])

    _through_MatMul = _through_Gemm  # noqa: N815

    def _through_Reshape(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        shape = self.shapes[node.input[0]]
        if not all(shape[1:]):
            return None
        # Of a gradient that is the same for all images the first dimension is 1, otherwise their number.
        return self.add("Reshape", [self._gradient, self._constant(np.array([-1, *shape[1:]], np.int64))])

    _through_Flatten = _through_Squeeze = _through_Reshape  # noqa: N815

    def _through_Transpose(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        order = np.argsort(read_attributes(node)["perm"])
        return self.add("Transpose", [self._gradient], perm=[int(axis) for axis in order])

    def _through_GlobalAveragePool(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        return self._spread_mean(node, (2, 3))

    def _through_ReduceMean(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        stated = self._graph.read_constant(node.input[1]) if len(node.input) > 1 else read_attributes(node).get("axes")
        rank = len(self.shapes[node.input[0]])
        return self._spread_mean(node, () if stated is None else tuple(sorted(int(axis) % rank for axis in stated)))

    def _spread_mean(self, node: onnx.NodeProto, axes: tuple[int, ...]) -> str | None:
        """The gradient of a mean over rows and columns: a share for each place, the same for all."""
        shape = self.shapes[node.input[0]]
        if len(shape) != 4 or axes not in ((2, 3), (1, 2)) or not all(shape[1:]):
            return None
        kept = [-1, *(1 if axis in axes else shape[axis] for axis in (1, 2, 3))]
        share = self._constant(np.array(1 / (shape[axes[0]] * shape[axes[1]]), np.float32))
        flat = self.add("Reshape", [self._gradient, self._constant(np.array(kept, np.int64))])
        return self.add("Mul", [flat, share])

    def _through_MaxPool(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        attributes = read_attributes(node)
        kernel, strides = attributes["kernel_shape"], attributes.get("strides", [1, 1])
        # Where windows overlap, a place may be the largest of several, whose gradients would have to be added.
        if any(k > s for k, s in zip(kernel, strides, strict=True)) or any(
            read_padding(node, self.shapes, tuple(kernel)) or [1]
        ):
            return None
        if len(node.output) == 1:
            node.output.append(f"{HEATMAP_NAME}_{node.name}_places")
        shape = self.add("Shape", [node.input[0]])
        whole = self._expand(node.output[0])
        return self.add("MaxUnpool", [whole, node.output[1], shape], kernel_shape=kernel, strides=strides)

    def _through_Conv(self, node: onnx.NodeProto) -> str | None:  # noqa: N802
        weights, attributes = self._graph.read_constant(node.input[1]), read_attributes(node)
        if weights is None or weights.ndim != 4:
            return None
        pads = read_padding(node, self.shapes, weights.shape[2:])
        if pads is None:
            return None
        strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
        missing = [  # rows and columns at the end that no window of the convolution has reached
            self.shapes[node.input[0]][2 + axis]
            + pads[axis]
            + pads[2 + axis]
            - (self.shapes[node.output[0]][2 + axis] - 1) * strides[axis]
            - dilations[axis] * (weights.shape[2 + axis] - 1)
            - 1
            for axis in (0, 1)
        ]
        return self.add(
            "ConvTranspose",
            [self._expand(node.output[0]), node.input[1]],
            kernel_shape=weights.shape[2:],
            strides=strides,
            dilations=dilations,
            pads=pads,
            output_padding=missing,
            group=attributes.get("group", 1),
        )

    def _expand(self, tensor: str) -> str:
        """The gradient in the whole shape of a tensor."""
        return self.add("Expand", [self._gradient, self.add("Shape", [tensor])])

    def _keeps_shape(self, node: onnx.NodeProto) -> bool:
        return self.shapes[node.input[0]] == self.shapes[node.output[0]]
