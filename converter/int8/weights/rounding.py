"""Rounding of weights that changes what a convolution answers as little as it can.

The error of a filter's answer is the sum of what its weights' errors are multiplied by. Rounded one by one, errors add
up wherever these values go together; here each weight is rounded so that it takes back what the others' errors do, by
the covariance of the values on slices, over and over until none moves (coordinate descent on the layer's squared error:
the objective of Frantar and Alistarh's Optimal Brain Compression, NeurIPS 2022, and the search of QuantEase, Behdin et
al., 2023). What the errors do on average the bias takes back (Nagel et al., ICCV 2019).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from converter.graph.edit import Graph
from converter.int8.watch import Watch
from converter.int8.weights.moments import Moments

MOST_SWEEPS = 8
"""Over the weights of a filter; most stop to move before."""

DAMPING = 0.01
"""Of the mean variance, added to each: what was measured is a sample, and other slices differ."""


def round_weights(model: onnx.ModelProto, moments: Mapping[str, Moments], *, steps: int, watch: Watch) -> None:
    """Rounds the weights of convolutions to their INT8 steps, in place; they stay floats.

    Args:
        model: the float graph.
        moments: of what the convolutions take, by name.
        steps: of the largest weight of a filter: 127, or 64 with 7-bit weights, as in ``onnxruntime.quantization``.
        watch: is told how far it is.

    Raises:
        TimeIsUp: between two layers.
    """
    graph = Graph(model)
    nodes = [node for node in graph.nodes if node.name in moments]
    for node in watch.track(nodes, len(nodes), "rounding weights"):
        weights = graph.read_constant(node.input[1])
        assert weights is not None  # else it would not have been measured
        rounded, shift = round_filters(weights.astype(np.float64), moments[node.name], steps)
        name, bias = f"{node.name}_rounded", graph.read_constant(node.input[2]) if len(node.input) > 2 else 0.0
        node.input[1] = graph.add_constant(f"{name}_weights", rounded.astype(np.float32))
        if bias is not None:  # one that is computed stays as it is
            node.input[2:] = [graph.add_constant(f"{name}_bias", (bias + shift).astype(np.float32))]
    graph.remove_unused()


def round_filters(
    weights: NDArray[np.float64], moments: Moments, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rounds the weights of one convolution.

    Args:
        weights: [filters, channels of a group, height, width].
        moments: of what it takes.
        steps: of the largest weight of a filter.

    Returns:
        The weights at whole steps of each filter's scale, and what to add to the bias, [filters]. A filter's largest
        weight, which sets the scale, does not move, and zeros stay.
    """
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    scale = np.where(largest > 0, largest, 1.0) / steps
    exact = moments.split(weights / scale)
    whole = moments.join(descend(exact, moments.covariance, steps)).reshape(weights.shape)
    rounded = whole * scale
    errors = moments.split(weights - rounded)
    return rounded, moments.join(errors @ moments.mean[:, :, np.newaxis]).sum(axis=1)


def descend(exact: NDArray[np.float64], covariance: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """The whole numbers near some weights that change the answers least, as far as moving one at a time finds them.

    Args:
        exact: weights in steps, [parts, filters, inputs].
        covariance: of the inputs, [parts, inputs, inputs].
        steps: the largest whole number.

    Returns:
        [parts, filters, inputs].
    """
    inputs = exact.shape[2]
    whole = np.clip(np.round(exact), -steps, steps)
    is_fixed = (np.abs(exact) > steps - 0.5) | (exact == 0)
    variance = np.trace(covariance, axis1=1, axis2=2)[:, np.newaxis, np.newaxis] / inputs
    covariance = covariance + DAMPING * variance * np.eye(inputs)
    # What does not vary is taken back by the bias, however it is rounded.
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    inverse = np.divide(1.0, variances, out=np.zeros_like(variances), where=variances > 0)
    for _ in range(MOST_SWEEPS):
        pull = (exact - whole) @ covariance
        before = whole.copy()
        for place in range(inputs):
            own = whole[:, :, place]
            wanted = np.clip(np.round(own + pull[:, :, place] * inverse[:, np.newaxis, place]), -steps, steps)
            parts, filters = np.nonzero((wanted != own) & ~is_fixed[:, :, place])
            move = (wanted - own)[parts, filters]
            whole[parts, filters, place] += move
            pull[parts, filters] -= move[:, np.newaxis] * covariance[parts, place]
        if np.array_equal(before, whole):
            break
    return whole
