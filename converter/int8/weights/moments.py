"""What convolutions take on slices: mean and covariance, which say what a change of their weights does to answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from converter.graph.cells import Shapes, read_padding
from converter.graph.edit import Graph, read_attributes
from converter.graph.heatmap import read_shapes
from converter.int8.ranges import answer_tensors
from converter.int8.watch import Watch

MOST_TOGETHER = 1152
"""Weights of a filter whose covariance is kept: memory and time grow with its square. Where there are more, parts of
so many at most are taken for unrelated."""

PLACES = 128
"""Of one slice, at which a convolution is looked at."""

SEED = 20
"""Of the choice of these places."""


@dataclass(frozen=True)
class Window:
    """What a convolution lays its filters on."""

    tensor: str
    """What it takes, [N, channels, rows, columns]."""

    groups: int
    channels: int
    """Of a group."""

    kernel: tuple[int, ...]
    strides: Sequence[int]
    dilations: Sequence[int]
    padding: Sequence[int]
    """Top, left, bottom, right."""

    @classmethod
    def read(cls, graph: Graph, node: onnx.NodeProto, shapes: Shapes) -> Window | None:
        """Of a convolution; None where its weights are no constants, or its padding is not known."""
        weights = graph.read_constant(node.input[1])
        padding = None if weights is None else read_padding(node, shapes, weights.shape[2:])
        if weights is None or padding is None:
            return None
        attributes = read_attributes(node)
        strides, dilations = (attributes.get(name, [1, 1]) for name in ("strides", "dilations"))
        groups = attributes.get("group", 1)
        return cls(node.input[0], groups, weights.shape[1], weights.shape[2:], strides, dilations, padding)

    def draw(self, values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """What the filters are laid on at ``PLACES`` places of one slice, or at all where there are fewer.

        Args:
            values: what the convolution takes, [channels, rows, columns].
            rng: draws the places.

        Returns:
            [places, channels * height * width of a filter].
        """
        top, left, bottom, right = self.padding
        extents = [step * (size - 1) + 1 for step, size in zip(self.dilations, self.kernel, strict=True)]
        padded = np.pad(values, ((0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=(1, 2))
        windows = windows[:, :: self.strides[0], :: self.strides[1], :: self.dilations[0], :: self.dilations[1]]
        rows, columns = windows.shape[1:3]
        places = rng.choice(rows * columns, min(rows * columns, PLACES), replace=False)
        return windows[:, places // columns, places % columns].transpose(1, 0, 2, 3).reshape(len(places), -1)


class Moments:
    """Of what the weights of a convolution are multiplied by, in parts that are taken for unrelated."""

    def __init__(self, window: Window) -> None:
        """Of nothing yet."""
        inputs = window.channels * window.kernel[0] * window.kernel[1]
        width = max(size for size in range(1, min(inputs, MOST_TOGETHER) + 1) if inputs % size == 0)
        parts = window.groups * inputs // width
        self._groups, self._count = window.groups, 0
        self._origin = np.zeros((parts, width), np.float32)
        self._sums = np.zeros((parts, width))
        self._products = np.zeros((parts, width, width), np.float32)

    def add(self, patches: NDArray[np.float32]) -> None:
        """Counts what was seen at some places, [places, parts * inputs]."""
        parts, inputs = self._sums.shape
        seen = patches.reshape(len(patches), parts, inputs).transpose(1, 0, 2)
        if not self._count:  # values far from 0 that hardly vary would leave nothing but rounding of their squares
            self._origin = seen.mean(axis=1)
        seen = np.ascontiguousarray(seen - self._origin[:, np.newaxis])
        self._sums += seen.sum(axis=1)
        self._products += seen.transpose(0, 2, 1) @ seen
        self._count += len(patches)

    def split(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights [filters, channels of a group, height, width] by parts, [parts, filters of a group, inputs]."""
        parts, inputs = self._sums.shape
        by_group = weights.reshape(self._groups, len(weights) // self._groups, parts // self._groups, inputs)
        return by_group.transpose(0, 2, 1, 3).reshape(parts, -1, inputs)

    def join(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The other way, [filters, channels of a group * height * width]; of one value a part [filters, parts]."""
        by_group = values.reshape(self._groups, -1, *values.shape[1:]).transpose(0, 2, 1, 3)
        return by_group.reshape(self._groups * by_group.shape[1], -1)

    @property
    def mean(self) -> NDArray[np.float64]:
        """[parts, inputs]."""
        return self._origin + self._sums / self._count

    @property
    def covariance(self) -> NDArray[np.float64]:
        """[parts, inputs, inputs]."""
        offset = self._sums / self._count
        return self._products / self._count - offset[:, :, np.newaxis] * offset[:, np.newaxis]


def measure_moments(
    model: onnx.ModelProto, layers: Sequence[str], pixels: NDArray[np.uint8], watch: Watch
) -> dict[str, Moments]:
    """Measures what convolutions take on slices.

    Args:
        model: the float graph, with inferred shapes.
        layers: names of the convolutions; those of which too little is known are left out.
        pixels: uint8 [N, height, width, channels].
        watch: is told how far it is.

    Raises:
        TimeIsUp: between two slices.
    """
    graph, shapes = Graph(model), read_shapes(model)
    read = {node.name: Window.read(graph, node, shapes) for node in graph.nodes if node.name in layers}
    windows = {name: window for name, window in read.items() if window is not None}
    moments = {name: Moments(window) for name, window in windows.items()}
    tensors = list(dict.fromkeys(window.tensor for window in windows.values()))
    answer, rng = answer_tensors(model, tensors), np.random.default_rng(SEED)
    for image in watch.track(pixels, len(pixels), "measuring what convolutions take"):
        values = dict(zip(tensors, answer(image), strict=True))
        for name, window in windows.items():
            moments[name].add(window.draw(values[window.tensor][0], rng))
    return moments
