"""What a model does to pixel values before its first weights, measured in its traced graph.

That tells which values it was trained on. It is measured rather than read from layers, for there are many ways to write
the same: Rescaling, Normalization, ``preprocess_input`` (operations without a layer), code of a SavedModel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

WEIGHTED = ("Conv2D", "DepthwiseConv2dNative", "Conv3D", "MatMul", "BatchMatMulV2", "Einsum")
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
IMAGE = "image"
LEVELS = (0.0, 127.5, 255.0)
IMAGES = 2
"""How many images of one level are asked for at a time: one would let a batch of one be taken for no batch."""

NORMALISED_SPREAD = 26
"""Bytes that are brought to a spread below this, a tenth of theirs, are wanted as bytes: 1 for 0..1, 2 for -1..1, about
4 for a division by the deviation of bright pictures, 25 by that of dark ones."""

EXCESSIVE_SPREAD = 400
"""Bytes that are brought to a spread above this are not wanted as bytes: 510 where 0..1 becomes -1..1, more where it is
divided by its deviation."""

MEAN_OF_BYTES = 50
"""An offset of at least this is a mean (or a maximum) of bytes: ImageNet's are 104 to 124."""


@dataclass(frozen=True)
class Levels:
    """What of black, mid-grey and white pixels, as bytes, reaches the first weights: one value a channel each."""

    black: NDArray[np.float64]
    grey: NDArray[np.float64]
    white: NDArray[np.float64]

    def read_range(self) -> str | None:
        """``0..255``, ``0..1`` or ``-1..1``: what is brought to what networks learn from; None where it is not told."""
        spread = np.abs(self.white - self.black)
        if not np.all(np.isfinite(spread) & (spread > 0)):
            return None
        if np.any(np.abs(self.black + self.white - 2 * self.grey) > 0.01 * spread):
            return None  # clipped, or a curve: its ends say nothing of what lies between
        if np.all(spread <= NORMALISED_SPREAD):
            return "0..255"
        if np.all(np.abs(spread - 255) < 1) and np.all(np.abs(self.black) >= MEAN_OF_BYTES):
            return "0..255"
        step = (self.white - self.black) / 255
        if np.all(np.abs(self.black - step) < 1) and np.all(np.abs(self.black + step - 255) < 1):
            return "-1..1"  # which is brought to bytes again
        middle = -self.black / (self.white - self.black) * 255
        if np.all(spread >= EXCESSIVE_SPREAD) and np.all((middle >= 0) & (middle <= 1)):
            return "0..1"
        return None


def read_input_range(call: Callable[[Any], Any], height: int, width: int, channels: int) -> str | None:
    """Returns the pixel values that a model takes, where what it does to them shows it.

    Args:
        call: the model, as ``converter.source.SourceModel.call``.
        height: of its images, in pixels.
        width: the same.
        channels: 1 or 3.

    Returns:
        ``0..255``, ``0..1``, ``-1..1``, or None.
    """
    try:
        found = {levels.read_range() for levels in measure_first_weights(call, (IMAGES, height, width, channels))}
    except Exception:  # TensorFlow raises whatever a model's own code does; that it cannot be traced, the export says
        return None
    return found.pop() if len(found) == 1 else None


def measure_first_weights(call: Callable[[Any], Any], shape: tuple[int, ...]) -> list[Levels]:
    """What reaches the first weights; one item for each branch where the network branches before them."""
    signature = tf.TensorSpec(shape, tf.float32, name=IMAGE)
    traced = tf.function(call, input_signature=[signature]).get_concrete_function()
    if any(operation.type in CALLS for operation in traced.graph.get_operations()):
        traced = convert_variables_to_constants_v2(traced, lower_control_flow=False, aggressive_inlining=True)
    image = traced.graph.get_operation_by_name(IMAGE).outputs[0]
    return [measure_levels(traced, tensor) for tensor in find_weighted(image) or traced.outputs]


def find_weighted(image: Any) -> list[Any]:
    """The tensors in which an image reaches the first weights; more than one where the network branches before."""
    seen, found, ahead = {image.ref()}, [], [image]
    while ahead:
        tensor = ahead.pop()
        takers = tensor.consumers()
        if any(taker.type in WEIGHTED for taker in takers):
            found.append(tensor)
        for output in (output for taker in takers if taker.type not in WEIGHTED for output in taker.outputs):
            if output.ref() not in seen:
                seen.add(output.ref())
                ahead.append(output)
    return found


def measure_levels(traced: Any, tensor: Any) -> Levels:
    """Runs the part of a traced graph that makes a tensor, on images of one level each."""
    needed = find_needed(tensor.op)
    whole = traced.graph.as_graph_def()
    part = tf.compat.v1.GraphDef(versions=whole.versions, library=whole.library)
    part.node.extend(node for node in whole.node if node.name in needed)
    captured = {
        inside.op.name: outside
        for outside, inside in zip(traced.captured_inputs, traced.graph.internal_captures, strict=True)
        if inside.op.name in needed and inside.op.type == "Placeholder"
    }

    def run_part(pixels: Any) -> Any:
        graph = tf.compat.v1.get_default_graph()
        given = {f"{name}:0": graph.capture(value) for name, value in {IMAGE: pixels, **captured}.items()}
        return tf.graph_util.import_graph_def(part, input_map=given, return_elements=[tensor.name])[0]

    shape = traced.graph.get_operation_by_name(IMAGE).outputs[0].shape
    run = tf.compat.v1.wrap_function(run_part, [tf.TensorSpec(shape, tf.float32)])
    levels = [np.asarray(run(tf.fill(shape, tf.constant(level))), np.float64) for level in LEVELS]
    # The median, because borders may be padded with zeros.
    return Levels(*(np.median(level.reshape(-1, level.shape[-1]), axis=0) for level in levels))


def find_needed(operation: Any) -> set[str]:
    """Names of an operation and of all that it depends on."""
    needed, ahead = {operation.name}, [operation]
    while ahead:
        taken = ahead.pop()
        for before in (*(tensor.op for tensor in taken.inputs), *taken.control_inputs):
            if before.name not in needed:
                needed.add(before.name)
                ahead.append(before)
    return needed
