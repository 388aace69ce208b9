"""Networks that people have, as a training leaves them: statistics that have seen slices, and a confident head.

Weights are random, which changes nothing in time and memory, and roundings in between are as large as trained ones'.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.training.data import CLASSES, find_plain, make_once
from server.process.console import silence_tensorflow

if TYPE_CHECKING:
    import keras

SIDE = 224
SLICES = 64
BATCH = 32
HEAD = "head"
LOGIT_SPREAD = 3.0
"""Standard deviation of the difference of the two logits: scores from below 0.01 to above 0.99, most in between."""

APPLICATIONS = {
    "ResNet50": "resnet50",
    "DenseNet121": "densenet",
    "MobileNetV2": "mobilenet_v2",
    "VGG16": "vgg16",
    "EfficientNetB0": "efficientnet",
}
"""Networks of ``keras.applications`` → module of their ``preprocess_input``."""


def build_cnn() -> keras.Model:
    """The paper's network."""
    from training.fit.models import build_cnn

    return build_cnn()


def build_application(name: str) -> keras.Model:
    """A public network as its documentation says: its own preprocessing, average pooling, one dense layer."""
    import keras

    pixels = keras.Input((SIDE, SIDE, 3))
    scaled = getattr(keras.applications, APPLICATIONS[name]).preprocess_input(pixels)
    base = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    features = keras.layers.GlobalAveragePooling2D()(base(scaled))
    return keras.Model(pixels, keras.layers.Dense(2, activation="softmax", name=HEAD)(features))


def list_builders() -> dict[str, Callable[[], keras.Model]]:
    """What ``--only`` takes → what builds it, in the order of the table."""

    def defer(name: str) -> Callable[[], keras.Model]:
        return lambda: build_application(name)

    return {"CNN": build_cnn, **{name: defer(name) for name in APPLICATIONS}}


def find_network(name: str) -> Path:
    """Returns the file of a network, made unless it is there."""

    def make(folder: Path) -> None:
        folder.mkdir()
        make_network(list_builders()[name], find_plain(SLICES)).save(folder / "model.keras")

    return make_once(f"network-{name}", make) / "model.keras"


def make_network(build: Callable[[], keras.Model], slices: Path) -> keras.Model:
    """Builds a network, shows it slices, and fits its head to their labels.

    Args:
        build: gives a network whose last layer is dense, with two units.
        slices: a folder for each of ``CLASSES``.
    """
    import keras

    from server.images.image_folder import list_folder
    from server.images.preprocess import InputFormat, load_pixels

    keras.utils.set_random_seed(1)
    network = build()
    height, width = network.input_shape[1:3]
    files = [(path, label) for label in CLASSES for path in list_folder(slices / label).images]
    pixels = np.stack([load_pixels(path.read_bytes(), InputFormat(height, width)).array for path, _ in files])
    targets = np.array([label == CLASSES[1] for _, label in files])
    settle_statistics(network, pixels[:: max(1, len(pixels) // BATCH)])
    head = network.layers[-1]
    features = keras.Model(network.inputs, head.input).predict(pixels, batch_size=4, verbose=0)
    head.set_weights(fit_head(features, targets))
    return network


def settle_statistics(network: Any, pixels: NDArray[np.uint8]) -> None:
    """Sets the statistics of batch normalisation to those of a batch of slices, layer after layer."""
    import keras

    layers = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    if layers:
        network(pixels.astype(np.float32), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def fit_head(features: NDArray[np.float32], targets: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Weights [features, 2] and bias [2] of a head that leans to the targets, with scores all over 0..1."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    fitted = LogisticRegression(C=1e-3, max_iter=1000).fit((features - mean) / deviation, targets)
    direction = fitted.coef_[0] / deviation
    direction *= LOGIT_SPREAD / ((features - mean) @ direction).std()
    weights, bias = np.stack([-direction, direction], axis=1) / 2, np.array([1, -1]) * (mean @ direction) / 2
    return [weights.astype(np.float32), bias.astype(np.float32)]


if __name__ == "__main__":
    # A process of its own, so that TensorFlow's memory and threads do not stay beside what is measured.
    with silence_tensorflow():
        import keras
    print(find_network(sys.argv[1]))
