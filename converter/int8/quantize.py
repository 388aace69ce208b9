"""Static INT8 quantisation, in the QDQ form that ONNX Runtime and OpenVINO fuse into integer convolutions.

Weights are symmetric per output channel and rounded together (``converter.int8.rounding``); activations have one scale
a tensor, after their channels were brought to similar ranges (``converter.int8.equalise``). Three ways to find these
ranges are tried, and the best by the accuracy gate is taken. If none passes, the convolutions that cost most accuracy
go back to fp32, as measured.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from converter.errors import AccuracyError, FusionError, describe
from converter.graph.blocks import gather_blocks, split_phases
from converter.graph.edit import Graph, embed_spec
from converter.graph.fusion import check_fused, count_left, find_moves, take_bytes_as_they_are
from converter.graph.rewrite import merge_pool_padding, pad_channels, pad_planes
from converter.graph.shortcuts import merge_shortcuts
from converter.int8.calibrate import METHODS, QUANTISED_OPERATORS, CalibrationSets, measure_ranges
from converter.int8.equalise import equalise_channels
from converter.int8.gate import Gate, Judge
from converter.int8.joined import balance_joined, share_ranges
from converter.int8.rounding import round_weights
from server.models.contract import ModelSpec
from server.models.runtime import OnnxModel

MOST_FP32_LAYERS = 4
"""Convolutions that may go back to fp32, and never more than half of them: beyond that little speed is left."""


@dataclass(frozen=True)
class Target:
    """How a kind of processor is fastest without losing accuracy."""

    activations: QuantType
    reduce_range: bool
    """7-bit weights: without VNNI, x86 adds pairs of products in 16 bits, which overflow with 8-bit weights."""

    @property
    def steps(self) -> int:
        """Of the largest weight of a filter."""
        return 64 if self.reduce_range else 127


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
        model: the fp32 graph, canonical (``converter.graph.edit``), input folded (``converter.graph.fold``).
        reference: the same, as it is served.
        sets: slices to calibrate and to judge on.
        target: one of ``TARGETS``.
        tell: called with each step as it starts.

    Raises:
        AccuracyError: no variant passed the gate; the message has the figures of the best.
        FusionError: ONNX Runtime cannot quantise the graph, or does not fuse it.
    """
    prepared = copy.deepcopy(model)
    merge_pool_padding(prepared)
    equalise_channels(prepared, sets.calibration.pixels)
    merge_shortcuts(prepared, list_outside(Graph(prepared)))
    balance_joined(prepared, sets.calibration.pixels)
    split_phases(prepared)
    gather_blocks(prepared)
    pad_channels(prepared)
    prepared = onnx.shape_inference.infer_shapes(prepared)
    pad_planes(prepared)
    judge = Judge(reference, sets)
    workshop = Workshop(prepared, reference.spec, TARGETS[target], judge)
    candidates = []
    for method in METHODS:
        tell(f"calibrating by {method} on {len(sets.calibration.pixels)} slices")
        ranges = measure_ranges(prepared, sets.calibration.pixels, method)
        share_ranges(prepared, ranges)
        candidates.append(workshop.make(method, ranges, ()))
    best = min(candidates, key=rank)
    if best.gate.list_failures():
        tell(f"{best.gate.list_failures()[0]}: looking for the layers that cost most")
        relaxed = [workshop.relax(candidate) for candidate in candidates]
        best = min(relaxed, key=rank)
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
        sets.describe(),
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


def list_layers(convolutions: Sequence[str], taken: Sequence[str]) -> list[tuple[str, ...]]:
    """Convolutions to try in fp32: each alone, and each with the next, since what lies between two is then fp32 too."""
    pairs = itertools.pairwise(convolutions)
    return [more for more in [*((name,) for name in convolutions), *pairs] if not set(more) & set(taken)]


def list_outside(graph: Graph) -> list[str]:
    """Nodes that no convolution reaches in integers alone: before the first one, behind an average or a dense layer.

    There are operators among them that would be quantised elsewhere, such as the Concat of one sigmoid's two
    probabilities, or the Reshape of pixels that were resized; nobody has measured their ranges.
    """
    constants = {item.name for item in graph.model.graph.initializer} | {""}
    inside: set[str] = set()
    outside = []
    for node in graph.nodes:  # in the order of computation
        is_reached = node.op_type in QUANTISED_OPERATORS and set(node.input) <= inside | constants
        if node.op_type == "Conv" or is_reached:
            inside |= set(node.output)
        else:
            outside.append(node.name)
    return outside


def rank(candidate: Candidate) -> tuple[int, float]:
    """Sort key: what passes the gate first, then the smaller difference on held-out slices."""
    return len(candidate.gate.list_failures()), candidate.gate.held_out.mean_difference


class Workshop:
    """Makes and judges variants of one prepared graph."""

    def __init__(self, prepared: onnx.ModelProto, spec: ModelSpec, target: Target, judge: Judge) -> None:
        self._prepared, self._spec, self._target, self._judge = prepared, spec, target, judge
        self._moves = find_moves(Graph(prepared))
        taker = Graph(prepared).follow(self._moves[-1].output[0]) if self._moves else None
        self._pixel_layer = "" if taker is None else taker.name
        self._outside = list_outside(Graph(prepared))
        self.convolutions = [node.name for node in prepared.graph.node if node.op_type == "Conv"]

    def make(self, method: str, ranges: Any, fp32_layers: Sequence[str]) -> Candidate:
        """Quantises all but the named layers, and judges the result."""
        rounded = copy.deepcopy(self._prepared)
        layers = [name for name in self.convolutions if name not in fp32_layers]
        round_weights(rounded, layers, steps=self._target.steps, pixel_layer=self._pixel_layer)
        quantizer = QDQQuantizer(
            rounded,
            per_channel=True,
            reduce_range=self._target.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=self._target.activations,
            tensors_range=ranges,
            nodes_to_quantize=[],
            # What only moves pixels will move bytes, once `take_bytes_as_they_are` is through.
            nodes_to_exclude=[*self._list_fp32_nodes(fp32_layers), *self._outside],
            op_types_to_quantize=QUANTISED_OPERATORS,
            extra_options={"TensorQuantOverrides": self._override_pixels()},
        )
        try:
            quantizer.quantize_model()
        except (ValueError, KeyError, RuntimeError) as error:
            raise FusionError(f"ONNX Runtime's quantizer does not know what to do with it: {describe(error)}") from None
        quantizer.model.topological_sort()
        quantised = quantizer.model.model
        if self._override_pixels():
            take_bytes_as_they_are(quantised, self._moves)
        data = embed_spec(quantised, self._spec)
        model = OnnxModel(data, source="the INT8 variant")
        return Candidate(method, ranges, tuple(fp32_layers), data, model, self._judge.compare(model))

    def relax(self, candidate: Candidate) -> Candidate:
        """Gives the layers that cost most back to fp32, until the gate is passed or too little speed is left."""
        most = min(MOST_FP32_LAYERS, len(self.convolutions) // 2)
        while candidate.gate.list_failures():
            more = list_layers(self.convolutions, candidate.fp32_layers)
            choices = [(*candidate.fp32_layers, *layers) for layers in more]
            tries = [self.make(candidate.method, candidate.ranges, layers) for layers in choices if len(layers) <= most]
            if not tries:
                break
            candidate = min(tries, key=rank)
        return candidate

    def _list_fp32_nodes(self, layers: Sequence[str]) -> list[str]:
        """The named convolutions with their ReLU, and what lies between two of them."""
        graph = Graph(self._prepared)
        names: list[str] = []
        for convolution in [node for node in graph.nodes if node.name in layers]:
            behind: list[str] = []
            node = graph.follow(convolution.output[0])
            is_activated = node is not None and node.op_type in ("Relu", "Clip")
            while node is not None and node.op_type != "Conv":
                behind.append(node.name)
                node = graph.follow(node.output[0])
            leads_to_another = node is not None and node.name in layers
            names += [convolution.name, *(behind if leads_to_another else behind[:is_activated])]
        return names

    def _override_pixels(self) -> dict[str, list[dict[str, Any]]]:
        """Pixels are bytes already: their own values are their quantised form."""
        if not self._moves or self._target.activations is not QuantType.QUInt8:
            return {}
        kind = {"quant_type": QuantType.QUInt8, "scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}
        return {self._moves[-1].output[0]: [kind]}
