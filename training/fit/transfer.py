"""Training of a classifier on the features of a frozen backbone, instead of the whole network on the images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.data.pixels import compute_fingerprint
from training.data.split import Data
from training.fit.augment import AUGMENTATIONS
from training.fit.features import FOLDER, View, compute_features
from training.fit.models import BACKBONES, CLASSIFIER
from training.fit.pipeline import PREFETCHED_BATCHES
from training.fit.weights import classifier_layers
from training.progress import Progress
from training.settings.train import TrainConfig


def has_frozen_backbone(config: TrainConfig) -> bool:
    """Returns whether the classifier alone is trained, so that features need to be computed only once."""
    return config.model in BACKBONES and config.unfreeze == 0


class ClassifierTraining:
    """The classifier of a network, its layers behind the backbone, and batches of features to train and to validate it
    on; a context manager.

    Attributes:
        model: the classifier; it shares its layers with the network, so that training it trains the network.
    """

    def __init__(self, config: TrainConfig, data: Data, network: keras.Model, folder: Path) -> None:
        """Computes the features of training and validation images, or takes them from the cache in the run folder.

        View 0 of an image is the image as it is; the others are varied. Validation images have view 0 only.

        Raises:
            TrainingError: there is not enough room on the disk.
        """
        training, validation = data.indices("train"), data.indices("validation")
        augmentation = AUGMENTATIONS[config.augment]
        views = config.views if augmentation is not None else 1
        self._views, self._network = views, network
        self._counts = (len(training), len(validation))
        self._store = compute_features(
            network,
            data.store,
            [View(validation, 0), *[View(training, number) for number in range(views)]],
            seed=config.seed,
            augmentation=augmentation,
            data=compute_fingerprint(data.images.files, data.digests),
            folder=folder,
            progress=Progress("features"),
        )
        self.model = build_classifier(network)

    def __enter__(self) -> ClassifierTraining:
        return self

    def __exit__(self, *exception: object) -> None:
        self._store.__exit__()

    def predict(self) -> NDArray[np.float32]:
        """Returns the probabilities [N, classes] of the validation images."""
        features = self._store.read(np.arange(self._counts[1]))
        return np.asarray(self.model.predict_on_batch(features))

    def make_batches(
        self, targets: NDArray[np.int64], weights: NDArray[np.float32], batch_size: int, *, seed: int, epochs: range
    ) -> tf.data.Dataset:
        """Returns shuffled (features, targets, weights) batches of some epochs, one after the other.

        Args:
            targets: [N], classes of the training images.
            weights: [classes], weight of each class in the loss.
            batch_size: images a step.
            seed: of order and choice of views.
            epochs: numbers of the epochs, from 0.
        """
        count, validation = self._counts

        def list_batches() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]]:
            for epoch in epochs:
                order, views = draw_epoch(seed, epoch, count, self._views)
                for start in range(0, count, batch_size):
                    images = order[start : start + batch_size]
                    rows = validation + views[start : start + batch_size] * count + images
                    yield self._store.read(rows), targets[images], weights[targets[images]]

        signature = (
            tf.TensorSpec([None, self._store.width], tf.float32),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.float32),
        )
        batches = tf.data.Dataset.from_generator(list_batches, output_signature=signature)
        return batches.prefetch(PREFETCHED_BATCHES)

    def assemble(self, classifier_weights: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Returns the weights of the whole network with those of a classifier in it."""
        self.model.set_weights(classifier_weights)
        return list(self._network.get_weights())


def build_classifier(network: keras.Model) -> keras.Model:
    """Returns the classifier of a network as a model of features float32 [N, F]; its layers are the network's own."""
    layers = classifier_layers(network)
    return keras.Sequential([keras.Input((layers[0].input.shape[-1],)), *layers], name=CLASSIFIER)


def draw_epoch(seed: int, epoch: int, count: int, views: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the order of the images in an epoch, and the view that each place in it shows: [count] each."""
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(count), rng.integers(0, views, count)


def remove_features(folder: Path) -> None:
    """Removes the cache from the folder of a training that is complete."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
