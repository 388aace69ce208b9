"""Rounding of weights, in which each makes up for the errors of those of its filter that were rounded before it.

Channels say similar things, and so do neighbouring pixels; what rounding one weight adds to an answer can mostly be
taken off it by others that are not rounded yet: by least squares on what they were seen to be multiplied by. After
Frantar et al., GPTQ (ICLR 2023), in the order of the inputs' energy. For convolutions of 1 x 1 and of each channel
alone; of others, ``converter.int8.rounding`` keeps the sums.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import helper

from converter.graph.edit import Graph, read_attributes
from converter.int8.equalise import is_convolution, is_depthwise
from converter.pixels.sampling import take_evenly
from server.machine.processors import count_processors
from server.models.contract import INPUT_NAME

MOST_SLICES = 48
MOST_PLACES = 256
"""Of a slice, evenly spread."""

DAMPING = 0.01
"""Of the mean energy: added to that of each input, so that hardly any error goes to one that was hardly seen."""

BLOCK = 64
"""Inputs whose errors are handed on to all others at once."""


def list_compensated(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The convolutions that are rounded so, by name."""
    graph = Graph(model)
    found = {}
    for node in graph.nodes:
        weights = graph.read_constant(node.input[1]) if is_convolution(graph, node, inputs=2) else None
        if weights is None or read_attributes(node).get("auto_pad", b"NOTSET") != b"NOTSET":
            continue
        if is_depthwise(graph, node) or weights.shape[2:] == (1, 1):
            found[node.name] = node
    return found


def measure_energies(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Returns the mean products of what the weights of a filter are multiplied by, by the convolution's name.

    Args:
        model: the float graph.
        pixels: slices to measure on, uint8 [N, height, width, channels].

    Returns:
        float32 [1, C, C] of convolutions of 1 x 1, and [C, h w, h w] of those of each channel alone.
    """
    nodes, graph = list_compensated(model), Graph(model)
    tensors = list(dict.fromkeys(node.input[0] for node in nodes.values()))
    if not tensors:
        return {}
    kernels = {name: graph.read_constant(node.input[1]).shape[2:] for name, node in nodes.items()}  # type: ignore[union-attr]
    watched = copy.deepcopy(model)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_processors()
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    energies: dict[str, NDArray[np.float32]] = {}
    images = take_evenly(pixels, MOST_SLICES)
    for image in images:
        seen = dict(zip(tensors, session.run(tensors, {INPUT_NAME: image[np.newaxis]}), strict=True))
        for name, node in nodes.items():
            taken = list_inputs(seen[node.input[0]][0], kernels[name], read_attributes(node))
            products = taken @ taken.transpose(0, 2, 1) / (taken.shape[2] * len(images))
            energies[name] = energies[name] + products if name in energies else products
    return energies


def list_inputs(values: NDArray[np.float32], kernel: tuple[int, ...], attributes: Mapping[str, Any]) -> NDArray[Any]:
    """Returns what a filter's weights are multiplied by, at some places.

    Args:
        values: float32 [C, H, W].
        kernel: height and width of its windows.
        attributes: of the convolution.

    Returns:
        float32 [1, C, places] for windows of 1 x 1, otherwise [C, h w, places].
    """
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    rows, columns = attributes.get("strides", (1, 1))
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right)))
    windows = sliding_window_view(padded, kernel, axis=(1, 2))[:, ::rows, ::columns]
    every = max(1, math.isqrt(windows.shape[1] * windows.shape[2] // MOST_PLACES))
    few = windows[:, every // 2 :: every, every // 2 :: every]
    places = few.reshape(len(values), -1, math.prod(kernel))
    return places.transpose(2, 0, 1) if kernel == (1, 1) else np.ascontiguousarray(places.transpose(0, 2, 1))


def compensate_weights(
    model: onnx.ModelProto, energies: Mapping[str, NDArray[np.float32]], *, steps: int
) -> dict[str, NDArray[np.float32]]:
    """Returns the rounded weights of the convolutions whose energies are known, in the shape of their weights."""
    graph = Graph(model)
    rounded = {}
    for name, node in list_compensated(model).items():
        weights = graph.read_constant(node.input[1])
        assert weights is not None  # `list_compensated` has looked
        energy = energies[name]
        groups, inputs = energy.shape[:2]
        filters = weights.astype(np.float64).reshape(groups, -1, inputs)
        rounded[name] = round_by_energy(filters, energy, steps).reshape(weights.shape).astype(np.float32)
    return rounded


def round_by_energy(weights: NDArray[np.float64], energy: NDArray[np.float32], steps: int) -> NDArray[np.float64]:
    """Returns weights [groups, filters, inputs] at whole steps of each filter's scale.

    Args:
        weights: of one convolution.
        energy: float [groups, inputs, inputs], mean products of what the inputs were seen to be.
        steps: of the largest weight of a filter, which stays what it is, since the scale is read off it.
    """
    inputs = weights.shape[2]
    largest = np.abs(weights).max(axis=2, keepdims=True)
    scale = np.where(largest > 0, largest, 1.0) / steps
    energies = np.einsum("gii->gi", energy).astype(np.float64)
    order = np.argsort(-energies, axis=1, kind="stable")
    exact = np.take_along_axis(weights / scale, order[:, np.newaxis], axis=2)
    is_largest = np.abs(exact) >= steps * (1 - 1e-9)
    damping = DAMPING * energies.mean(axis=1)
    sorted_energy = np.take_along_axis(energy.astype(np.float64), order[:, :, np.newaxis], axis=1)
    sorted_energy = np.take_along_axis(sorted_energy, order[:, np.newaxis], axis=2)
    damped = sorted_energy + np.where(damping > 0, damping, 1.0)[:, np.newaxis, np.newaxis] * np.eye(inputs)
    # Row i says how the inputs after i take up an error of i, as long as they alone are free.
    factor = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left, whole = exact.copy(), np.zeros_like(exact)
    for first in range(0, inputs, BLOCK):
        last = min(first + BLOCK, inputs)
        errors = np.zeros((*left.shape[:2], last - first))
        for place in range(first, last):
            nearest = np.clip(np.round(left[..., place]), -steps, steps)
            whole[..., place] = np.where(is_largest[..., place], np.round(exact[..., place]), nearest)
            error = (left[..., place] - whole[..., place]) / factor[:, place, place, np.newaxis]
            left[..., place:last] -= error[..., np.newaxis] * factor[:, np.newaxis, place, place:last]
            errors[..., place - first] = error
        left[..., last:] -= errors @ factor[:, first:last, last:]
    found = np.empty_like(whole)
    np.put_along_axis(found, np.broadcast_to(order[:, np.newaxis], found.shape), whole, axis=2)
    result: NDArray[np.float64] = found * scale
    return result
