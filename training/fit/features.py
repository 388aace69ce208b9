"""What a frozen backbone says of each image, computed once and kept on disk: features float32 [images x views, F].

A frozen backbone answers the same in each epoch, so its answers on a few varied views of every image replace it. The
cache grows image by image in a fixed order; what it says of itself names the backbone's weights, the images and the
changes, and how many rows are finished, so that a run which was stopped goes on, and anything else starts anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from training.data.pixels import PixelStore
from training.errors import TrainingError
from training.fit.augment import Augmentation, vary_batch
from training.fit.checkpoint import FEATURES_HEADER
from training.fit.models import CLASSIFIER, FEATURES
from training.fit.pipeline import PREFETCHED_BATCHES, expand_grey, read_batch, split_planes

FOLDER = "features"
BATCH = 32
"""Images that go through the backbone at once, and are finished at once."""
ROW_TYPE = np.dtype("<f4")
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)


@dataclass(frozen=True)
class View:
    """Some images in one variation."""

    indices: NDArray[np.int64]
    """Images of the pixel store."""

    number: int
    """0 is the image as it is; other numbers are other draws of the changes."""


def compute_features(
    network: keras.Model,
    store: PixelStore,
    views: list[View],
    *,
    seed: int,
    augmentation: Augmentation | None,
    data: str,
    folder: Path,
    progress: Callable[[int, int], None],
) -> FeatureStore:
    """Computes the features of all views, or of those that the cache in a folder does not have yet.

    Args:
        network: whose layer ``FEATURES`` gives the features.
        store: the images.
        views: what is to be computed, in the order of the rows.
        seed: of the changes; the same seed, view and images give the same changes.
        augmentation: ranges of the changes; None leaves all views as they are.
        data: what identifies the images of the store.
        folder: where the cache is, in a folder of its own.
        progress: called with the number of images done and in all.

    Returns:
        The open store; the caller closes it.

    Raises:
        TrainingError: there is not enough room on the disk.
    """
    extract = make_extractor(network)
    cache = FeatureStore(
        folder / FOLDER,
        rows=sum(len(view.indices) for view in views),
        width=int(network.get_layer(FEATURES).output.shape[-1]),
        identity={
            "weights": digest_arrays(extract.weights),
            "precision": network.get_layer(CLASSIFIER).dtype_policy.name,
            "data": data,
            "images": digest_arrays([view.indices for view in views]),
            "views": [view.number for view in views],
            "augmentation": None if augmentation is None else asdict(augmentation),
            "seed": seed,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    )
    try:
        for images in make_view_batches(store, views, cache.done, seed=seed, augmentation=augmentation):
            cache.append(extract(images).numpy())
            progress(cache.done, cache.rows)
    except BaseException:
        cache.__exit__()
        raise
    return cache


def make_view_batches(
    store: PixelStore, views: list[View], done: int, *, seed: int, augmentation: Augmentation | None
) -> tf.data.Dataset:
    """Returns batches of float32 images [N, H, W, 3], 0 to 255, without the first ``done`` of them.

    The changes of a batch follow from the seed, the view and its place in it, whatever was done before.
    """

    def list_batches() -> Iterator[tuple[NDArray[np.int64], int, NDArray[np.int64]]]:
        first = 0
        for view in views:
            for start in range(0, len(view.indices), BATCH):
                indices = view.indices[start : start + BATCH]
                if first >= done:
                    yield indices, view.number, np.array([seed, (view.number << 32) + start], np.int64)
                first += len(indices)

    def prepare(indices: tf.Tensor, number: tf.Tensor, batch_seed: tf.Tensor) -> tf.Tensor:
        images = tf.cast(split_planes(read_batch(store, indices), store.channels)[0], tf.float32)
        if augmentation is not None:
            images = tf.cond(number > 0, lambda: vary_batch(images, batch_seed, augmentation), lambda: images)
        return expand_grey(tf.ensure_shape(images, [None, *images.shape[1:]]))

    signature = (
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([2], tf.int64),
    )
    batches = tf.data.Dataset.from_generator(list_batches, output_signature=signature)
    return batches.map(prepare, num_parallel_calls=2, deterministic=True).prefetch(PREFETCHED_BATCHES)


def make_extractor(network: keras.Model) -> Extractor:
    """Returns the part of a network up to its features, with batch normalisation folded into the convolutions.

    Exact in real numbers, since frozen normalisation is a scale and a shift of each channel; most of the passes over
    memory between the convolutions go.
    """
    part = keras.Model(network.inputs, network.get_layer(FEATURES).output)
    normalisations = {id(layer.input): layer for layer in part.layers if is_normalisation(layer)}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, CONVOLUTIONS) and id(layer.output) in normalisations:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if is_normalisation(layer) else layer(*inputs, **options)

    folded = keras.models.clone_model(part, clone_function=clone, call_function=call)
    for layer in part.layers:
        weights = layer.get_weights()
        if isinstance(layer, CONVOLUTIONS) and (normalisation := normalisations.pop(id(layer.output), None)):
            gamma, beta, mean, variance = (array.astype(np.float64) for array in normalisation.get_weights())
            scale = gamma / np.sqrt(variance + normalisation.epsilon)
            bias = weights[1] if layer.use_bias else 0.0
            # A depthwise kernel is [height, width, channels, 1], any other [height, width, channels, filters].
            of_kernel = scale.reshape(weights[0].shape[2:] if isinstance(layer, layers.DepthwiseConv2D) else -1)
            weights = [weights[0] * of_kernel, (bias - mean) * scale + beta]
        if weights and not is_normalisation(layer):
            folded.get_layer(layer.name).set_weights(weights)
    if normalisations:
        raise AssertionError(f"{network.name}: batch normalisation that does not follow a convolution")
    return Extractor(folded, part.get_weights())


def is_normalisation(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, layers.BatchNormalization)


class Extractor:
    """A backbone as a function of float32 images [N, H, W, 3], 0 to 255, to features float32 [N, F]."""

    def __init__(self, model: keras.Model, weights: list[NDArray[np.float32]]) -> None:
        self.weights = weights
        """Of the backbone as it was, before folding."""
        self._call = tf.function(lambda images: model(images, training=False), reduce_retracing=True)

    def __call__(self, images: Any) -> tf.Tensor:
        return self._call(images)


class FeatureStore:
    """Rows of float32 in a file, written in order and read by position; a context manager.

    Plain reads rather than a memory map: mapped pages count as the process's memory, up to the size of the file.
    """

    def __init__(self, folder: Path, rows: int, width: int, identity: dict[str, Any]) -> None:
        """Opens the cache in a folder if it is of the same identity, rows and width; else starts a new one there.

        Raises:
            TrainingError: there is not enough room on the disk.
        """
        self.rows, self.width = rows, width
        self._identity = json.loads(json.dumps({**identity, "rows": rows, "width": width}))
        self._header, path = folder / FEATURES_HEADER, folder / "features.f32"
        self._row_bytes = width * ROW_TYPE.itemsize
        self.done = self._read_done(path)
        """Rows that are finished."""
        if not self.done:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        missing, free = (rows - self.done) * self._row_bytes, shutil.disk_usage(folder).free
        if missing > free:
            raise TrainingError(
                f"the features of {rows:,} views need {missing / 1e9:.1f} GB beside the run folder, "
                f"{free / 1e9:.1f} GB are free; use fewer --views"
            )
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)

    def _read_done(self, path: Path) -> int:
        """Rows of an earlier run that are of use."""
        try:
            header = json.loads(self._header.read_text("utf-8"))
            done = int(header["done"])
            if header["identity"] == self._identity and 0 <= done <= self.rows:
                return done if path.stat().st_size >= done * self._row_bytes else 0
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)

    def append(self, features: NDArray[np.float32]) -> None:
        """Writes the next rows, float32 [N, width], and records that they are finished: both survive a power cut."""
        data = np.ascontiguousarray(features, ROW_TYPE).tobytes()
        if os.pwrite(self._file, data, self.done * self._row_bytes) != len(data):
            raise TrainingError("the disk is full: the features do not fit beside the run folder")
        os.fdatasync(self._file)
        self.done += len(features)
        header = self._header.with_suffix(".new")
        header.write_text(json.dumps({"identity": self._identity, "done": self.done}), "utf-8")
        header.replace(self._header)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Reads rows, float32 [len(rows), width]."""
        features = np.empty((len(rows), self.width), np.float32)
        for target, row in zip(features, rows, strict=True):
            data = os.pread(self._file, self._row_bytes, int(row) * self._row_bytes)
            target[:] = np.frombuffer(data, ROW_TYPE)
        return features


def digest_arrays(arrays: list[NDArray[Any]]) -> str:
    """Returns the SHA-256 of some arrays' shapes, types and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
