"""What public code does to pixel values between decoding and ``predict``; written once, for NumPy and for the graph.

The names of the values are those of ``keras.applications.imagenet_utils.preprocess_input``, whose modes ``caffe`` and
``torch`` are, and whose mode ``tf`` is -1..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTES = "0..255"
CHANNEL_ORDERS = ("rgb", "bgr")


@dataclass(frozen=True)
class Arithmetic:
    """(pixel / divisor - mean) / deviation, channel by channel."""

    divisor: float = 1.0
    means: tuple[float, ...] = (0.0,)
    """One for all channels, or one each."""

    deviations: tuple[float, ...] = (1.0,)
    """The same."""

    reverses: bool = False
    """Whether the order of the channels is turned round before."""

    @property
    def needs_colours(self) -> bool:
        """Whether it is for three channels."""
        return len(self.means) > 1


PREPROCESS = {
    BYTES: Arithmetic(),
    "0..1": Arithmetic(255.0),
    "-1..1": Arithmetic(127.5, (1.0,)),
    "caffe": Arithmetic(means=(103.939, 116.779, 123.68), reverses=True),
    "torch": Arithmetic(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""What a model was trained on → how bytes become that. Means and deviations are ImageNet's."""


@dataclass(frozen=True)
class Preprocess:
    """The pixel values that a model takes, and the order of their channels."""

    values: str = BYTES
    """A key of ``PREPROCESS``."""

    channel_order: str = "rgb"
    """Of the channels before the arithmetic: ``bgr`` where an author's decoder (``cv2.imread``) gave them so."""

    @property
    def arithmetic(self) -> Arithmetic:
        """How bytes become the values."""
        return PREPROCESS[self.values]

    @property
    def is_reversed(self) -> bool:
        """Whether the model takes blue first."""
        return (self.channel_order == "bgr") != self.arithmetic.reverses

    def __str__(self) -> str:
        return self.values if self.channel_order == "rgb" else f"{self.values} of {self.channel_order}"

    def apply(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """What the model was trained on, of bytes in RGB.

        Args:
            pixels: [N, height, width, channels], 0 to 255. One channel stands for three equal ones where it must.

        Returns:
            float32 [N, height, width, channels].
        """
        values: NDArray[Any] = pixels.astype(np.float32)
        if self.is_reversed:
            values = values[..., ::-1]
        arithmetic = self.arithmetic
        if arithmetic.divisor != 1:
            values = values / np.float32(arithmetic.divisor)
        if any(arithmetic.means):
            values = values - np.array(arithmetic.means, np.float32)
        if arithmetic.deviations != (1.0,):
            values = values / np.array(arithmetic.deviations, np.float32)
        return values.astype(np.float32, copy=False)

    def add_to_graph(self, pixels: Any, *, is_grey: bool) -> Any:
        """The same in TensorFlow.

        Args:
            pixels: float32 [N, height, width, channels], as many as the model takes.
            is_grey: all channels are equal.
        """
        import tensorflow as tf

        if self.is_reversed and pixels.shape[3] == 3 and not is_grey:
            pixels = tf.gather(pixels, [2, 1, 0], axis=3)
        arithmetic = self.arithmetic
        if arithmetic.divisor != 1:
            pixels = pixels / arithmetic.divisor
        if any(arithmetic.means):
            pixels = pixels - tf.constant(arithmetic.means, tf.float32)
        if arithmetic.deviations != (1.0,):
            pixels = pixels / tf.constant(arithmetic.deviations, tf.float32)
        return pixels


def list_possible(channels: int) -> list[str]:
    """Keys of ``PREPROCESS`` that a model of 1 or 3 channels can have been trained on."""
    return [name for name, arithmetic in PREPROCESS.items() if channels == 3 or not arithmetic.needs_colours]


BYTES_AS_THEY_ARE = Preprocess()
