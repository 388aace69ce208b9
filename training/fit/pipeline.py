"""From the pixel store to the batches that Keras trains on, in TensorFlow's own threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.data.format import INPUT_FORMAT
from training.data.pixels import PixelStore
from training.fit.augment import Augmentation, vary_batch
from training.fit.localisation import Tap, make_lesion_targets

PREFETCHED_BATCHES = 2
"""Batches that wait ready: enough to bridge a pause of the disk, and 25 MB each."""


def make_batches(store: PixelStore, indices: NDArray[np.int64], batch_size: int) -> tf.data.Dataset:
    """Returns batches of images in the order of ``indices``: uint8 [N, H, W, 3], 0 to 255."""
    batches = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
    images = batches.map(
        lambda index: expand_grey(split_planes(read_batch(store, index), store.channels)[0]),
        num_parallel_calls=2,
        deterministic=True,
    )
    return images.prefetch(PREFETCHED_BATCHES)


def make_training_batches(
    store: PixelStore,
    indices: NDArray[np.int64],
    targets: NDArray[np.int64],
    batch_size: int,
    *,
    seed: int,
    epochs: range,
    augmentation: Augmentation | None,
    balanced: bool = True,
    taps: tuple[Tap, ...] = (),
) -> tf.data.Dataset:
    """Returns shuffled and varied (images, targets, weights) batches; images are float32 [N, H, W, 3], 0 to 255.

    Targets are the classes, and after them a lesion map for each of the ``taps``. Where ``balanced``, the weights are
    such that each class weighs the same in the loss, whatever its share of the images; otherwise they are 1.

    The passes ``epochs`` come one after the other, ceil(len(indices) / batch_size) batches each. Order and changes of
    a pass follow from the seed and the number of the epoch alone, so that a run which goes on at epoch 3 sees what it
    would have seen without the break.
    """
    class_weights = tf.constant(weigh_classes(targets, balanced=balanced))

    def shuffle_pass(epoch: tf.Tensor) -> tf.data.Dataset:
        pass_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(indices)), pass_seed)
        shuffled = (tf.gather(tf.constant(indices), order), tf.gather(tf.constant(targets), order))
        batches = tf.data.Dataset.from_tensor_slices(shuffled).batch(batch_size).enumerate()
        return batches.map(lambda step, batch: (batch, tf.random.experimental.stateless_fold_in(pass_seed, step)))

    def prepare(batch: tuple[tf.Tensor, tf.Tensor], batch_seed: tf.Tensor) -> tuple[Any, Any, Any]:
        index, target = batch
        planes = read_batch(store, index)
        varied = vary_batch(planes, batch_seed, augmentation, store.channels) if augmentation else planes
        planes = tf.cast(varied, tf.float32)
        images, masks = split_planes(planes, store.channels)
        weight = tf.gather(class_weights, target)
        if not taps:
            return expand_grey(images), target, weight
        maps = make_lesion_targets(masks, taps)
        return expand_grey(images), (target, *maps), (weight, *[tf.ones_like(weight)] * len(maps))

    passes = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(shuffle_pass)
    return passes.map(prepare, num_parallel_calls=2, deterministic=True).prefetch(PREFETCHED_BATCHES)


def weigh_classes(targets: NDArray[np.int64], *, balanced: bool) -> NDArray[np.float32]:
    """Returns the weight [classes] of each class in the loss: such that all count the same, or 1."""
    counts = np.bincount(targets, minlength=2)
    weights = len(targets) / (len(counts) * np.maximum(counts, 1)) if balanced else np.ones(len(counts))
    return weights.astype(np.float32)


def read_batch(store: PixelStore, indices: tf.Tensor) -> tf.Tensor:
    """Reads images from the store inside a pipeline: uint8 [N, H, W, store.planes]."""
    images = tf.numpy_function(store.read, [indices], tf.uint8, stateful=False)
    return tf.ensure_shape(images, [None, INPUT_FORMAT.height, INPUT_FORMAT.width, store.planes])


def split_planes(planes: tf.Tensor, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns images [N, H, W, channels] and lesion masks [N, H, W, 0 or 1]."""
    return planes[..., :channels], planes[..., channels:]


def expand_grey(images: tf.Tensor) -> tf.Tensor:
    """Repeats the channel of grey images, [N, H, W, 1] to [N, H, W, 3]: at the end, where it costs least."""
    return images if images.shape[3] == 3 else tf.repeat(images, 3, axis=3)
