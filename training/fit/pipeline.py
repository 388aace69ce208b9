"""From the pixel store to the batches that Keras trains on, in TensorFlow's own threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.data.format import INPUT_FORMAT
from training.data.pixels import PixelStore
from training.fit.augment import Augmentation, vary_batch
from training.fit.localisation import Tap, make_lesion_targets

# Read at TensorFlow's first operation. Operations of a step that run beside each other hold more memory at once, in
# another order each time; one at a time still has all processors.
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

PREFETCHED_BATCHES = 1
"""Batches that wait ready, beside one that is being made; a step takes several times as long as either. Each that waits
lies in the way of what a step allocates, and costs more memory than its own size."""


def make_batches(store: PixelStore, indices: NDArray[np.int64], batch_size: int) -> tf.data.Dataset:
    """Returns batches of images in the order of ``indices``: uint8 [N, H, W, 3], 0 to 255."""
    batches = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
    return prefetch_batches(batches, lambda index: split_planes(read_batch(store, index), store.channels)[0])


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
            return images, target, weight
        maps = make_lesion_targets(masks, taps)
        return images, (target, *maps), (weight, *[tf.ones_like(weight)] * len(maps))

    passes = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(shuffle_pass)
    return prefetch_batches(passes, prepare)


def prefetch_batches(batches: tf.data.Dataset, prepare: Callable[..., Any]) -> tf.data.Dataset:
    """Returns batches that are made while others are used, in their order, such that little memory waits.

    TensorFlow's pool of memory never gives anything back, and a batch that waits splits the room that the tensors of a
    step leave in it. So what waits is small, and grey is repeated when it is taken.

    Args:
        batches: what ``prepare`` takes.
        prepare: makes images [N, H, W, 1 or 3], or these and what else there is of a batch.
    """
    ready = batches.map(prepare, num_parallel_calls=1, deterministic=True).prefetch(PREFETCHED_BATCHES)
    options = tf.data.Options()
    # TensorFlow would make the last step parallel and put a queue behind it.
    options.autotune.enabled = False
    options.experimental_optimization.map_parallelization = False
    options.experimental_optimization.inject_prefetch = False
    whole = ready.map(lambda images, *more: (expand_grey(images), *more) if more else expand_grey(images))
    return whole.with_options(options)


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
