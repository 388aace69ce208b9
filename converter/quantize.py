"""Static INT8 quantisation, in the QDQ form that ONNX Runtime and OpenVINO fuse into integer convolutions.

Weights are symmetric per output channel, activations have one scale a tensor. Three ways to find the activations'
ranges are tried, and the best by the accuracy gate is taken. If none passes, the convolutions that cost most accuracy
go back to fp32, one after the other, as measured.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from converter.calibrate import METHODS, QUANTISED_OPERATORS, CalibrationSets, measure_ranges
from converter.errors import AccuracyError, FusionError
from converter.gate import Gate, Judge
from converter.graph import Graph, embed_spec
from converter.rewrite import merge_pool_padding, pad_channels, split_phases
from server.contract import INPUT_NAME, ModelSpec
from server.runtime import OnnxModel

MOST_FP32_LAYERS = 4
"""Convolutions that may go back to fp32, and never more than half of them: beyond that little speed is left."""

MOST_LEFT = {"QuantizeLinear": 1, "DequantizeLinear": 1, "Transpose": 2}
"""Nodes that may be left after ONNX Runtime's own optimisation where everything is fused: into the integer part and
out of it once, and the pixels' way from blocks to channels."""

MOST_LEFT_PER_FP32_LAYER = 2
"""More of each that every convolution left in fp32 brings."""


@dataclass(frozen=True)
class Target:
    """How a kind of processor is fastest without losing accuracy."""

    activations: QuantType
    reduce_range: bool
    """7-bit weights: without VNNI, x86 adds pairs of products in 16 bits, which overflow with 8-bit weights."""


TARGETS = {
    "x86-vnni": Target(QuantType.QUInt8, reduce_range=False),
    "x86": Target(QuantType.QUInt8, reduce_range=True),
    "arm64": Target(QuantType.QInt8, reduce_range=False),
}


@dataclass(frozen=True)
class Quantised:
    """A quantised model that passed the gate."""

    data: bytes
    """The ONNX file, spec included."""

    model: OnnxModel
    method: str
    """One of ``METHODS``."""

    fp32_layers: tuple[str, ...]
    """Names of the convolutions that stayed fp32."""

    left: Mapping[str, int]
    """Nodes of each kind in ``MOST_LEFT`` that are left after ONNX Runtime's optimisation."""

    tried: Mapping[str, float]
    """Mean absolute difference of the probability on the held-out set, by method."""

    gate: Gate
    target: str
    calibration_source: str

    def to_document(self) -> Mapping[str, object]:
        """What ``manifest.json`` records."""
        return {
            "method": self.method,
            "fp32_layers": list(self.fp32_layers),
            "nodes_left": dict(self.left),
            "mean_difference_by_method": dict(self.tried),
            "slices": self.calibration_source,
            **self.gate.to_document(),
        }


def quantise(
    model: onnx.ModelProto,
    reference: OnnxModel,
    sets: CalibrationSets,
    *,
    target: str,
    tell: Callable[[str], None] = lambda step: None,
) -> Quantised:
    """Makes the INT8 variant of a model.

    Args:
        model: the fp32 graph, canonical (``converter.graph``), input folded (``converter.rewrite``).
        reference: the same, as it is served.
        sets: slices to calibrate and to judge on.
        target: one of ``TARGETS``.
        tell: called with each step as it starts.

    Raises:
        AccuracyError: no variant passed the gate; the message has the figures of the best.
        FusionError: ONNX Runtime does not fuse the graph.
    """
    prepared = copy.deepcopy(model)
    merge_pool_padding(prepared)
    split_phases(prepared)
    pad_channels(prepared)
    prepared = onnx.shape_inference.infer_shapes(prepared)
    judge = Judge(reference, sets)
    workshop = Workshop(prepared, reference.spec, TARGETS[target], judge)
    candidates = []
    for method in METHODS:
        tell(f"calibrating by {method} on {len(sets.calibration.pixels)} slices")
        ranges = measure_ranges(prepared, sets.calibration.pixels, method)
        candidates.append(workshop.make(method, ranges, ()))
    best = min(candidates, key=rank)
    while best.gate.list_failures() and len(best.fp32_layers) < min(MOST_FP32_LAYERS, len(workshop.convolutions) // 2):
        layers = [name for name in workshop.convolutions if name not in best.fp32_layers]
        tell(f"{best.gate.list_failures()[0]}: looking for the layer that costs most among {len(layers)}")
        best = min((workshop.make(best.method, best.ranges, (*best.fp32_layers, name)) for name in layers), key=rank)
    failures = best.gate.list_failures()
    if failures:
        raise AccuracyError(
            f"the INT8 variant does not pass the accuracy gate, and is not written: {'; '.join(failures)} "
            f"(best of {', '.join(METHODS)}: {best.method}; in fp32: {', '.join(best.fp32_layers) or 'none'}). "
            "Calibrate on slices like those it will see (--calibrate DIR), or serve fp32"
        )
    left = count_left(best.data)
    check_fused(left, fp32_layers=len(best.fp32_layers))
    return Quantised(
        best.data,
        best.model,
        best.method,
        best.fp32_layers,
        left,
        {candidate.method: candidate.gate.held_out.mean_difference for candidate in candidates},
        best.gate,
        target,
        sets.source,
    )


@dataclass(frozen=True)
class Candidate:
    """One variant, judged."""

    method: str
    ranges: Any
    fp32_layers: tuple[str, ...]
    data: bytes
    model: OnnxModel
    gate: Gate


def rank(candidate: Candidate) -> tuple[int, float]:
    """Sort key: what passes the gate first, then the smaller difference on held-out slices."""
    return len(candidate.gate.list_failures()), candidate.gate.held_out.mean_difference


class Workshop:
    """Makes and judges variants of one prepared graph."""

    def __init__(self, prepared: onnx.ModelProto, spec: ModelSpec, target: Target, judge: Judge) -> None:
        self._prepared, self._spec, self._target, self._judge = prepared, spec, target, judge
        self._moves = find_moves(Graph(prepared))
        self.convolutions = [node.name for node in prepared.graph.node if node.op_type == "Conv"]

    def make(self, method: str, ranges: Any, fp32_layers: Sequence[str]) -> Candidate:
        """Quantises all but the named layers, and judges the result."""
        quantizer = QDQQuantizer(
            copy.deepcopy(self._prepared),
            per_channel=True,
            reduce_range=self._target.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=self._target.activations,
            tensors_range=ranges,
            nodes_to_quantize=[],
            # What only moves pixels will move bytes, once `take_bytes_as_they_are` is through.
            nodes_to_exclude=[*fp32_layers, *(moved.name for moved in self._moves)],
            op_types_to_quantize=QUANTISED_OPERATORS,
            extra_options={"TensorQuantOverrides": self._override_pixels()},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantised = quantizer.model.model
        if self._override_pixels():
            take_bytes_as_they_are(quantised, self._moves)
        data = embed_spec(quantised, self._spec)
        model = OnnxModel(data, source="the INT8 variant")
        return Candidate(method, ranges, tuple(fp32_layers), data, model, self._judge.compare(model))

    def _override_pixels(self) -> dict[str, list[dict[str, Any]]]:
        """Pixels are bytes already: their own values are their quantised form."""
        if not self._moves or self._target.activations is not QuantType.QUInt8:
            return {}
        kind = {"quant_type": QuantType.QUInt8, "scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}
        return {self._moves[-1].output[0]: [kind]}


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


def check_fused(left: Mapping[str, int], *, fp32_layers: int) -> None:
    """Refuses a graph in which integers are turned into floats and back between its layers.

    Raises:
        FusionError: naming the counts and the bounds.
    """
    bounds = {kind: most + MOST_LEFT_PER_FP32_LAYER * fp32_layers for kind, most in MOST_LEFT.items()}
    too_many = [f"{left[kind]} {kind} (at most {most})" for kind, most in bounds.items() if left[kind] > most]
    if too_many:
        raise FusionError(
            f"ONNX Runtime {onnxruntime.__version__} does not fuse the quantised graph: {', '.join(too_many)} are "
            "left, so it would be slower than it should; it is not written"
        )
