"""Ranges that activations take on slices, recorded one slice at a time: memory does not grow with their number."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

from converter.graph.edit import Graph
from converter.int8.watch import Watch
from converter.int8.weights.equalise import read_limit
from converter.pixels.sampling import take_evenly
from server.machine.processors import count_processors
from server.models.contract import INPUT_NAME

RANGED_OPERATORS = ("Conv", "Relu", "Clip", "Add", "Concat")
"""Operators whose inputs and outputs need ranges; the others of ``QUANTISED_OPERATORS`` keep those of their inputs."""

MOST_HISTOGRAM_SLICES = 32
MOST_VALUES = 1 << 16
"""Values of one activation on one slice that are counted, evenly spread: two million in all are enough for the 0.001 %
at the ends, and counting them all would take longer than computing them."""

BINS = 2048
LEVELS = 255
ROOM = 0.25
CUT = 1e-5
"""Share of the values that ``percentile`` leaves out, half of it at each end."""


@dataclass
class Recorded:
    """What was seen of one activation."""

    low: float
    high: float
    counts: NDArray[np.int64]
    """[BINS], of equal width between ``low`` and ``high``; zeros before they are counted."""

    def find_range(self, method: str) -> tuple[float, float]:
        """The range by one of ``METHODS``; zero is in it."""
        return METHODS[method](self)


def keep_all(seen: Recorded) -> tuple[float, float]:
    """All values that were seen."""
    return min(seen.low, 0.0), max(seen.high, 0.0)


def leave_room(seen: Recorded) -> tuple[float, float]:
    """All values that were seen, and ``ROOM`` beyond: other slices may be brighter."""
    low, high = keep_all(seen)
    return low * (1 + ROOM), high * (1 + ROOM)


def cut_ends(seen: Recorded) -> tuple[float, float]:
    """All values but the ``CUT`` at the ends."""
    share = np.cumsum(seen.counts) / max(seen.counts.sum(), 1)
    edges = np.linspace(seen.low, seen.high, BINS + 1)
    low, high = np.searchsorted(share, [CUT / 2, 1 - CUT / 2])
    return min(float(edges[min(low, BINS - 1)]), 0.0), max(float(edges[min(high, BINS - 1) + 1]), 0.0)


METHODS: dict[str, Callable[[Recorded], tuple[float, float]]] = {
    "min-max": keep_all,
    "percentile": cut_ends,
    "min-max with room": leave_room,
}
"""How the range of an activation is found. Others were measured and left out: ranges of least
information loss (entropy) or least squared error cut off what answers depend on; on the bundled CNN the former makes
nine times the difference of ``percentile``."""


class Ranges:
    """The ranges of the activations around convolutions on some slices."""

    def __init__(self, model: onnx.ModelProto, pixels: NDArray[np.uint8], watch: Watch) -> None:
        """Records them, in two passes.

        Args:
            model: the float model.
            pixels: uint8 [N, height, width, channels].
            watch: is told how far it is.

        Raises:
            TimeIsUp: between two slices.
        """
        tensors = list_ranged(onnx.shape_inference.infer_shapes(model))
        graph = Graph(model)
        self._limits = {node.output[0]: limit for node in graph.nodes if (limit := read_limit(graph, node)) is not None}
        self._seen = {name: Recorded(np.inf, -np.inf, np.zeros(BINS, np.int64)) for name in tensors}
        counted = take_evenly(pixels, MOST_HISTOGRAM_SLICES)
        answer = answer_tensors(model, tensors)
        passes = [(self._extend, image) for image in pixels] + [(self._count, image) for image in counted]
        for note, image in watch.track(passes, len(passes), "recording ranges of activations"):
            for name, values in zip(tensors, answer(image), strict=True):
                note(self._seen[name], values)

    @staticmethod
    def _extend(seen: Recorded, values: NDArray[np.float32]) -> None:
        seen.low, seen.high = min(seen.low, float(values.min())), max(seen.high, float(values.max()))

    @staticmethod
    def _count(seen: Recorded, values: NDArray[np.float32]) -> None:
        flat = values.reshape(-1)
        flat = flat[:: max(1, len(flat) // MOST_VALUES)]
        width = (seen.high - seen.low) / BINS or 1.0
        seen.counts += np.bincount(np.clip((flat - seen.low) / width, 0, BINS - 1).astype(np.int64), minlength=BINS)

    def find(self, method: str) -> TensorsData:
        """By one of ``METHODS``, as ``onnxruntime.quantization`` takes them."""
        found = {name: seen.find_range(method) for name, seen in self._seen.items()}
        # Beyond the end of an activation there is nothing, and the integers are what cuts there.
        found |= {
            name: (low, min(high, self._limits[name])) for name, (low, high) in found.items() if name in self._limits
        }
        data = {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in found.items()}
        return TensorsData(CalibrationMethod.MinMax, data)


def list_ranged(model: onnx.ModelProto) -> list[str]:
    """The float tensors that ``RANGED_OPERATORS`` take and make, constants left out."""
    floats = {
        info.name
        for info in (*model.graph.value_info, *model.graph.output)
        if info.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    around = [[*node.input, *node.output] for node in model.graph.node if node.op_type in RANGED_OPERATORS]
    return list(dict.fromkeys(name for names in around for name in names if name in floats))


def answer_tensors(
    model: onnx.ModelProto, tensors: Sequence[str]
) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """A function from one slice, uint8 [height, width, channels], to the values of some tensors."""
    watched = copy.deepcopy(model)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_processors()
    data = watched.SerializeToString()
    del watched
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(list(tensors), {INPUT_NAME: image[np.newaxis]})
