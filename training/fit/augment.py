"""How training images are varied: a table of presets, and the one affine map that carries out each of them.

Flip, rotation, scale and shift of an image are composed into a single resampling, so that a batch costs one pass over
its pixels. TensorFlow is imported where a batch is varied, so that the names of the presets cost nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from training.fit.imaging import Imaging, vary_imaging

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; each is drawn anew for every image and epoch."""

    horizontal_flip: bool = False
    """Left and right change places in half of the images."""

    vertical_flip: bool = False
    """Front and back change places in half of the images."""

    rotation: float = 0.0
    """Largest angle either way, in degrees."""

    scale: float = 0.0
    """Largest relative change of the size either way; as likely larger as smaller."""

    shift: float = 0.0
    """Largest shift either way and axis, as a share of the side."""

    contrast: float = 0.0
    """Largest relative change of the grey values' spread either way, as a narrower or wider window makes it."""

    brightness: float = 0.0
    """Largest change of all grey values either way, in grey levels, as a moved window makes it."""

    imaging: Imaging | None = None
    """What scanner and archive do to the grey levels; None: nothing."""


_HEAD_CT = Augmentation(horizontal_flip=True, rotation=10.0, scale=0.1, shift=0.05, contrast=0.1, brightness=12.0)
_SCANNER = Imaging(blur=1.0, sharpening=0.6, noise=10.0, gamma=0.3, jpeg=40)
_ANY_SOURCE = Imaging(blur=1.0, sharpening=1.5, noise=12.0, gamma=0.5, jpeg=30)

AUGMENTATIONS: dict[str, Augmentation | None] = {
    # "Flips and rotations" is all the paper says; vertical flips do not occur in head CT.
    "paper": Augmentation(horizontal_flip=True, vertical_flip=True, rotation=15.0),
    "head-ct": _HEAD_CT,
    "scanner": replace(_HEAD_CT, imaging=_SCANNER),
    # Other kernels, windows, crops and exports than those of the training slices.
    "any-source": replace(_HEAD_CT, rotation=15.0, scale=0.25, contrast=0.35, brightness=30.0, imaging=_ANY_SOURCE),
    "none": None,
}


def vary_batch(
    images: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation, channels: int | None = None
) -> tf.Tensor:
    """Varies every image of a batch.

    Args:
        images: uint8 or float32 [N, H, W, C], 0 to 255.
        seed: int64 [2]; the same seed gives the same changes.
        augmentation: ranges of the changes.
        channels: the first so many of C are grey levels, what follows is a mask that only moves; None: all are.

    Returns:
        float32 [N, H, W, C], 0 to 255; what comes into view from outside is black, as air is.
    """
    import tensorflow as tf

    count = tf.shape(images)[0]
    draws = tf.random.stateless_uniform([8, count], seed, -1.0, 1.0)
    height, width = images.shape[1], images.shape[2]
    shifts = augmentation.shift * draws[3:5] * [[width], [height]]
    varied = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=affine_rows(
            mirror_x=random_sign(draws[0], augmentation.horizontal_flip),
            mirror_y=random_sign(draws[1], augmentation.vertical_flip),
            angle=augmentation.rotation * math.pi / 180 * draws[2],
            size=tf.exp(math.log1p(augmentation.scale) * draws[7]),
            shifts=shifts,
            centre=((width - 1) / 2, (height - 1) / 2),
        ),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    greys, masks = varied[..., :channels], varied[..., channels or images.shape[3] :]
    if augmentation.imaging:
        greys = vary_imaging(greys, tf.random.experimental.stateless_fold_in(seed, 1), augmentation.imaging)
    if augmentation.contrast or augmentation.brightness:
        spread = (1 + augmentation.contrast * draws[5])[:, None, None, None]
        level = (augmentation.brightness * draws[6])[:, None, None, None]
        # In every window air is black and bone white.
        inside = (greys > 0) & (greys < 255)
        greys = tf.where(inside, tf.clip_by_value((greys - 127.5) * spread + 127.5 + level, 0.0, 255.0), greys)
    return tf.concat([greys, masks], axis=3)


def random_sign(draws: tf.Tensor, is_random: bool) -> tf.Tensor:
    """Returns -1 for the half of the draws below 0, else 1; 1 for all where nothing is to be mirrored."""
    import tensorflow as tf

    return tf.where(draws < 0, -1.0, 1.0) if is_random else tf.ones_like(draws)


def affine_rows(
    mirror_x: tf.Tensor,
    mirror_y: tf.Tensor,
    angle: tf.Tensor,
    size: tf.Tensor,
    shifts: tf.Tensor,
    centre: tuple[float, float],
) -> tf.Tensor:
    """Returns float32 [N, 8]: each image's map from output pixel to input pixel, as ImageProjectiveTransform wants it.

    Args:
        mirror_x: float32 [N], -1 or 1.
        mirror_y: float32 [N], -1 or 1.
        angle: float32 [N], radians.
        size: float32 [N], 1.1 makes what is seen a tenth larger.
        shifts: float32 [2, N], pixels.
        centre: fixed point of rotation, size and mirrors, x and y in pixels.
    """
    import tensorflow as tf

    cosine, sine = tf.cos(angle) / size, tf.sin(angle) / size
    a, b = mirror_x * cosine, -mirror_x * sine
    c, d = mirror_y * sine, mirror_y * cosine
    x, y = centre
    offset_x = x - a * x - b * y + shifts[0]
    offset_y = y - c * x - d * y + shifts[1]
    zeros = tf.zeros_like(angle)
    return tf.stack([a, b, offset_x, c, d, offset_y, zeros, zeros], axis=1)
