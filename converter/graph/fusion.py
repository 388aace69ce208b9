"""Graphs that stay in integers: pixels that go in as bytes, and no conversions between the layers."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from converter.errors import FusionError
from converter.graph.edit import Graph
from server.models.contract import INPUT_NAME

MOST_LEFT = {"QuantizeLinear": 1, "DequantizeLinear": 1, "Transpose": 4}
"""Nodes that may be left after ONNX Runtime's own optimisation where everything is fused: into the integer part and
out of it once, and the pixels' way into blocks, to planes and back, which takes a hundredth of a network's time."""


def find_moves(graph: Graph) -> list[onnx.NodeProto]:
    """The cast of the graph's input and what moves its values to the first convolution; none where they change."""
    moves: list[onnx.NodeProto] = []
    node = graph.follow(INPUT_NAME)
    while node is not None and node.op_type in (("Reshape", "Transpose", "Pad") if moves else ("Cast",)):
        moves.append(node)
        node = graph.follow(node.output[0])
    return moves if node is not None and node.op_type == "Conv" else []


def take_bytes_as_they_are(model: onnx.ModelProto, moves: Sequence[onnx.NodeProto]) -> None:
    """Removes the way from bytes to float and, with scale 1, back to bytes: what only moves pixels moves bytes.

    Args:
        model: the quantised model.
        moves: what ``find_moves`` found before.
    """
    graph = Graph(model)
    first, last = moves[0].output[0], moves[-1].output[0]
    quantize = graph.follow(last)
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return
    for old, new in ((quantize.output[0], last), (first, INPUT_NAME)):
        for node in graph.find_takers(old):
            node.input[:] = [new if name == old else name for name in node.input]
    for node in graph.nodes:
        if node.op_type == "Pad" and node.name in {move.name for move in moves} and len(node.input) > 2:
            value = graph.read_constant(node.input[2])
            if value is not None:
                node.input[2] = graph.add_constant(f"{node.input[2]}_byte", value.astype(np.uint8))
    del model.graph.value_info[:]  # says that they are floats
    graph.remove_unused()


def count_left(data: bytes) -> dict[str, int]:
    """Counts the nodes of each kind in ``MOST_LEFT`` after ONNX Runtime's own optimisation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    return {kind: kinds[kind] for kind in MOST_LEFT}


def check_fused(left: Mapping[str, int], crossings: tuple[int, int]) -> None:
    """Refuses a graph in which integers are turned into floats and back where nothing between is in fp32.

    Args:
        left: what is left, of ``count_left``.
        crossings: how often values have to go into integers and out of them (``converter.int8.region``); around each
            a Transpose may be left, too.

    Raises:
        FusionError: naming the counts and the bounds.
    """
    into, out = crossings
    justified = {"QuantizeLinear": into, "DequantizeLinear": out, "Transpose": MOST_LEFT["Transpose"] + into + out}
    bounds = {kind: max(most, justified[kind]) for kind, most in MOST_LEFT.items()}
    too_many = [f"{left[kind]} {kind} (at most {most})" for kind, most in bounds.items() if left[kind] > most]
    if too_many:
        raise FusionError(
            f"ONNX Runtime {onnxruntime.__version__} does not fuse the quantised graph: {', '.join(too_many)} are "
            "left, so it would be slower than it should; it is not written"
        )
