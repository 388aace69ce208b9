"""Variants of one graph: made in the QDQ form that ONNX Runtime and OpenVINO fuse into integer convolutions.

Weights are symmetric per output channel and rounded together (``converter.int8.weights.rounding``); activations have
one scale a tensor, after their channels were brought to similar ranges (``converter.int8.weights.equalise``).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from converter.errors import FusionError, describe
from converter.graph.blocks import gather_blocks, split_phases
from converter.graph.edit import Graph, embed_spec
from converter.graph.fusion import find_moves, take_bytes_as_they_are
from converter.graph.rewrite import merge_pool_padding, pad_channels, pad_planes
from converter.graph.shortcuts import merge_shortcuts
from converter.int8.cascade import Band, join
from converter.int8.gate import Comparison, Judge
from converter.int8.region import QUANTISED_OPERATORS, Region
from converter.int8.watch import Watch
from converter.int8.weights.bottlenecks import equalise_bottlenecks
from converter.int8.weights.equalise import equalise_channels
from converter.int8.weights.joined import balance_joined, share_ranges
from converter.int8.weights.moments import measure_moments
from converter.int8.weights.rounding import round_weights
from server.models.contract import ModelSpec
from server.models.runtime import OnnxModel


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
class Candidate:
    """One variant, compared with fp32 on the calibration set."""

    method: str
    ranges: Any
    fp32_layers: tuple[str, ...]
    data: bytes
    model: OnnxModel
    calibration: Comparison
    band: Band | None = None
    """Where fp32 answers in its place; None: nowhere."""

    @property
    def rank(self) -> tuple[int, float]:
        """Sort key: what fails least first, then the smaller difference."""
        return len(self.calibration.list_failures()), self.calibration.mean_difference


def prepare(model: onnx.ModelProto, pixels: NDArray[np.uint8], watch: Watch) -> onnx.ModelProto:
    """The graph that is quantised: the same answers, in the form that integers are fast and exact on."""
    prepared = copy.deepcopy(model)
    merge_pool_padding(prepared)
    equalise_channels(prepared, watch.track(pixels, len(pixels), "equalising channels"))
    equalise_bottlenecks(prepared, pixels)
    merge_shortcuts(prepared, Region(prepared).outside)
    balance_joined(prepared, pixels)
    split_phases(prepared)
    gather_blocks(prepared)
    pad_channels(prepared)
    prepared = onnx.shape_inference.infer_shapes(prepared)
    pad_planes(prepared)
    return prepared


class Workshop:
    """Makes and judges variants of one prepared graph."""

    def __init__(
        self,
        prepared: onnx.ModelProto,
        spec: ModelSpec,
        target: Target,
        judge: Judge,
        pixels: NDArray[np.uint8],
        watch: Watch,
    ) -> None:
        """Rounds the weights of all convolutions, on slices.

        Args:
            prepared: from ``prepare``.
            spec: what is written into each variant.
            target: for which processor.
            judge: compares them with fp32.
            pixels: slices on which it is measured what convolutions take, uint8 [N, height, width, channels].
            watch: is told how far it is.

        Raises:
            TimeIsUp: before all were rounded.
        """
        self._prepared, self._spec, self._target, self._judge = prepared, spec, target, judge
        self._moves = find_moves(Graph(prepared))
        self.region = Region(prepared)
        self._rounded = copy.deepcopy(prepared)
        moments = measure_moments(prepared, self.region.convolutions, pixels, watch)
        round_weights(self._rounded, moments, steps=target.steps, watch=watch)

    def round(self, fp32_layers: Sequence[str]) -> onnx.ModelProto:
        """The graph with rounded weights in all convolutions but those that stay fp32."""
        rounded = copy.deepcopy(self._rounded)
        graph, exact = Graph(rounded), Graph(self._prepared)
        for node, before in zip(graph.nodes, exact.nodes, strict=True):
            if node.name in fp32_layers:
                for name in {*before.input} - {*node.input}:
                    value = exact.read_constant(name)
                    assert value is not None  # only constants are rounded
                    graph.add_constant(name, value)
                node.input[:] = before.input
        graph.remove_unused()
        return rounded

    def make(self, method: str, ranges: Any, fp32_layers: Sequence[str]) -> Candidate:
        """Quantises all but the named members of the region, and compares the result."""
        share_ranges(self._prepared, ranges)
        quantizer = QDQQuantizer(
            self.round(fp32_layers),
            per_channel=True,
            reduce_range=self._target.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=self._target.activations,
            tensors_range=ranges,
            nodes_to_quantize=[],
            # What only moves pixels will move bytes, once `take_bytes_as_they_are` is through.
            nodes_to_exclude=[*self.region.list_fp32(fp32_layers), *self.region.outside],
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
        return Candidate(method, ranges, tuple(fp32_layers), *self._load(quantised))

    def join(self, candidate: Candidate, exact: onnx.ModelProto, band: Band) -> Candidate:
        """A candidate in whose place the fp32 graph answers within a band."""
        joined = join(onnx.load_from_string(candidate.data), exact, self._spec, band)
        data, model, calibration = self._load(joined)
        return replace(candidate, data=data, model=model, calibration=calibration, band=band)

    def _load(self, quantised: onnx.ModelProto) -> tuple[bytes, OnnxModel, Comparison]:
        """File, model and comparison of a finished graph."""
        data = embed_spec(quantised, self._spec)
        model = OnnxModel(data, source="the INT8 variant")
        return data, model, self._judge.compare_calibration(model)

    def _override_pixels(self) -> dict[str, list[dict[str, Any]]]:
        """Pixels are bytes already: their own values are their quantised form."""
        if not self._moves or self._target.activations is not QuantType.QUInt8:
            return {}
        kind = {"quant_type": QuantType.QUInt8, "scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}
        return {self._moves[-1].output[0]: [kind]}
