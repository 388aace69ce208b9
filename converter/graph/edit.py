"""An ONNX graph as its rewrites see it, the canonical form that they start from, and the file that it becomes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from converter.errors import SourceError, describe
from server.machine.memory import trim_memory
from server.models.contract import METADATA_KEY, ModelSpec

NHWC_TO_NCHW = (0, 3, 1, 2)
NCHW_TO_NHWC = (0, 2, 3, 1)


class Graph:
    """An ONNX graph with what its rewrites need: who makes a tensor, who takes it, what is constant."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = model.graph.node

    def find_takers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that take a tensor."""
        return [node for node in self.nodes if tensor in node.input]

    def find_maker(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, or None for inputs and constants."""
        return next((node for node in self.nodes if tensor in node.output), None)

    def follow(self, tensor: str) -> onnx.NodeProto | None:
        """The only node that takes a tensor, or None."""
        takers = self.find_takers(tensor)
        return takers[0] if len(takers) == 1 else None

    def read_constant(self, tensor: str) -> NDArray[Any] | None:
        """The value of an initializer, or None."""
        found = next((item for item in self.model.graph.initializer if item.name == tensor), None)
        return None if found is None else numpy_helper.to_array(found)

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Adds an initializer and returns its name."""
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def replace(self, old: list[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
        """Puts nodes where others were, keeping the order of the graph."""
        position = list(self.nodes).index(old[0])
        for node in old:
            self.nodes.remove(node)
        for offset, node in enumerate(new):
            self.nodes.insert(position + offset, node)

    def remove_unused(self) -> None:
        """Removes nodes and constants whose results nobody takes."""
        outputs = {output.name for output in self.model.graph.output}
        while True:
            taken = outputs | {name for node in self.nodes for name in node.input}
            idle = [node for node in self.nodes if not taken & set(node.output)]
            for node in idle:
                self.nodes.remove(node)
            if not idle:
                break
        for item in [item for item in self.model.graph.initializer if item.name not in taken]:
            self.model.graph.initializer.remove(item)


def read_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def add_channel_amounts(graph: Graph, name: str, channels: int) -> str:
    """A constant that tells Pad to add channels behind those of [N, C, H, W]."""
    return graph.add_constant(name, np.array([0, 0, 0, 0, 0, channels, 0, 0], np.int64))


def canonicalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the graph after ONNX Runtime's basic optimisations, which fold constants and batch normalisation.

    All nodes have names, dimensions that a Reshape computes from the batch size become constants, and shapes are
    inferred. ``metadata_props`` are kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        plain = onnx.load(path)
    opset = next(entry.version for entry in plain.opset_import if entry.domain == "")
    del plain.opset_import[:]
    plain.opset_import.append(helper.make_opsetid("", opset))
    for number, node in enumerate(plain.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    inferred = onnx.shape_inference.infer_shapes(plain, data_prop=True)
    fix_reshapes(inferred)
    return inferred


def fix_reshapes(model: onnx.ModelProto) -> None:
    """Replaces shapes that are computed from the batch size by constants with -1 in its place."""
    graph = Graph(model)
    shapes = {info.name: info.type.tensor_type.shape.dim for info in model.graph.value_info}
    for node in graph.nodes:
        dims = shapes.get(node.output[0], ())
        if (
            node.op_type == "Reshape"
            and graph.read_constant(node.input[1]) is None
            and len(dims) > 1
            and all(dim.HasField("dim_value") for dim in list(dims)[1:])
        ):
            shape = np.array([-1] + [dim.dim_value for dim in list(dims)[1:]], np.int64)
            node.input[1] = graph.add_constant(f"{node.name}_shape", shape)
    graph.remove_unused()


def embed_spec(model: onnx.ModelProto, spec: ModelSpec) -> bytes:
    """Returns the file's bytes with the spec in its metadata, after ONNX's own checker.

    Raises:
        SourceError: the checker refuses the graph.
    """
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SourceError(f"onnx.checker refuses the exported graph: {describe(error)}") from None
    trim_memory()  # the checker makes copies of all weights
    return bytes(model.SerializeToString())
