"""How grey levels of training images are varied: blur and kernel, noise, grey curve, JPEG, as scanners and archives do.

TensorFlow is imported where a batch is varied, as in ``training.fit.augment``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

_ROW = (1.0, 4.0, 6.0, 4.0, 1.0)
"""Binomial row, near to a Gaussian of one pixel."""

_NO_JPEG = 100


@dataclass(frozen=True)
class Imaging:
    """Ranges of the random changes; each is drawn anew for every image and epoch, and left out of every other one."""

    blur: float = 0.0
    """Largest share in which an image is mixed with its blurred self: 1 is a Gaussian of about one pixel."""

    sharpening: float = 0.0
    """Largest share of its blurred self that is taken away, as a sharp kernel does."""

    noise: float = 0.0
    """Largest standard deviation of added noise, in grey levels; its grain varies from a pixel to about three."""

    gamma: float = 0.0
    """Largest change either way of the logarithm of the grey curve's exponent."""

    jpeg: int = _NO_JPEG
    """Lowest quality of JPEG, from there to 100; 100 leaves images as they are."""


def vary_imaging(images: tf.Tensor, seed: tf.Tensor, imaging: Imaging) -> tf.Tensor:
    """Varies the grey levels of every image of a batch.

    Black and white stay as they are before the JPEG: in a window air is darker than black and bone brighter than white
    whatever the noise.

    Args:
        images: float32 [N, H, W, C], 0 to 255, C = 1 or 3.
        seed: int64 [2]; the same seed gives the same changes.
        imaging: ranges of the changes.

    Returns:
        float32 [N, H, W, C], 0 to 255.
    """
    import tensorflow as tf

    count = tf.shape(images)[0]
    draws = tf.random.stateless_uniform([8, count, 1, 1, 1], seed)
    chosen = tf.cast(draws[:4] < 0.5, tf.float32)
    inside = tf.cast((images > 0) & (images < 255), tf.float32)
    if imaging.blur or imaging.sharpening:
        share = -imaging.sharpening + (imaging.sharpening + imaging.blur) * draws[4]
        images += chosen[0] * share * (blur_batch(images) - images)
    if imaging.noise:
        white = tf.random.stateless_normal(tf.shape(images[..., :1]), seed)
        coarse = 3.0 * blur_batch(white)  # about as strong as it was: the blur leaves a third of white noise
        grain = draws[6]
        images += chosen[1] * imaging.noise * draws[5] * inside * ((1 - grain) * white + grain * coarse)
    images = tf.clip_by_value(images, 0.0, 255.0)
    if imaging.gamma:
        images = 255.0 * (images / 255.0) ** tf.exp(chosen[2] * imaging.gamma * (2 * draws[7] - 1))
    if imaging.jpeg < _NO_JPEG:
        qualities = tf.random.stateless_uniform([count], seed, imaging.jpeg, _NO_JPEG, tf.int32)
        images = tf.map_fn(_recompress, (images, qualities, chosen[3, :, 0, 0, 0] > 0), fn_output_signature=tf.float32)
    return images


def blur_batch(images: tf.Tensor) -> tf.Tensor:
    """Returns images [N, H, W, C] blurred by about one pixel; the rim mixes with black."""
    import tensorflow as tf

    channels = images.shape[3]
    row = tf.tile(tf.reshape(tf.constant(_ROW) / sum(_ROW), [1, 5, 1, 1]), [1, 1, channels, 1])
    across = tf.nn.depthwise_conv2d(images, row, [1, 1, 1, 1], "SAME")
    return tf.nn.depthwise_conv2d(across, tf.transpose(row, [1, 0, 2, 3]), [1, 1, 1, 1], "SAME")


def _recompress(item: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """One image [H, W, C] as it is after a JPEG of that quality, where it is chosen."""
    import tensorflow as tf

    image, quality, is_chosen = item

    def go_through_jpeg() -> tf.Tensor:
        pixels = tf.cast(tf.round(image), tf.uint8)
        return tf.cast(tf.ensure_shape(tf.image.adjust_jpeg_quality(pixels, quality), image.shape), tf.float32)

    return tf.cond(is_chosen, go_through_jpeg, lambda: image)
