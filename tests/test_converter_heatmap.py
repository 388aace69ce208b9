"""The heatmap in the graph is HiResCAM as TensorFlow's own gradient gives it, for each kind of network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from server.models.contract import HEATMAP_NAME, INPUT_NAME, OUTPUT_NAME, ModelSpec
from server.models.engines.engine import EngineOptions
from server.models.manifest import EXPLAIN_FILE
from server.models.runtime import load_model
from tests.backbones import randomise_statistics, use_tiny_backbone
from tests.converting import SIDE, convert
from tests.fakes import run_module

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow

CLASSES = ("normal", "ischaemia", "haemorrhage")
FOUR = ("normal", "other", *CLASSES[1:])


def build_cnn(stages: int, outputs: int = 2, activation: str = "softmax") -> Any:
    """Like the paper's CNN; with one stage it ends with enough cells, with three it goes back through a convolution."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(5)
    initializer = keras.initializers.RandomNormal(stddev=0.5)
    network = [keras.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 255)]
    for _ in range(stages):
        network += [layers.Conv2D(8, 3, activation="relu", kernel_initializer="he_normal"), layers.MaxPooling2D(2)]
    network += [
        layers.Flatten(),
        layers.Dense(16, activation="relu", kernel_initializer="he_normal"),
        layers.Dense(outputs, activation=activation, kernel_initializer=initializer),
    ]
    return keras.Sequential(network)


def build_strided_network() -> Any:
    """It goes back through two convolutions, one of them padded and strided, and an odd number of rows."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(6)
    convolution = {"activation": "relu", "kernel_initializer": "he_normal"}
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 4, strides=3, padding="same", **convolution),
            layers.Conv2D(8, 2, **convolution),
            layers.MaxPooling2D(2),
            layers.Conv2D(8, 3, strides=2, padding="same", **convolution),
            layers.Conv2D(8, 2, **convolution),
            layers.Flatten(),
            layers.Dense(16, **convolution),
            layers.Dense(2, activation="softmax"),
        ]
    )


def build_transfer_network() -> Any:
    """A backbone, average pooling, a dense ReLU layer, a softmax: as the training of this project builds it."""
    import keras

    from training.fit.models import build_resnet50

    keras.utils.set_random_seed(7)
    with use_tiny_backbone():
        network = build_resnet50()
    randomise_statistics(network)
    return network


def make_images(side: int) -> NDArray[np.uint8]:
    """Coarse and fine patterns: uint8 [4, side, side, 3]."""
    random = np.random.RandomState(1)
    coarse = random.randint(0, 200, (4, 8, 8, 3))
    places = np.arange(side) * 8 // side
    return (coarse[:, places][:, :, places] + random.randint(0, 56, (4, side, side, 3))).astype(np.uint8)


def explain(network: Any, folder: Path, spec: ModelSpec) -> Callable[[NDArray[np.uint8]], Any]:
    """Exports a network with its heatmap; returns what makes answers and heatmaps of pixels."""
    from converter.export import export_model
    from converter.graph.edit import embed_spec
    from converter.graph.heatmap import add_heatmap
    from converter.source import load_source

    path = folder / "network.keras"
    network.save(path)
    graph = export_model(load_source(path), channels=3, opset=17)
    embed_spec(graph, spec)
    explained = add_heatmap(graph)
    assert explained is not None
    session = onnxruntime.InferenceSession(explained.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda pixels: session.run([OUTPUT_NAME, HEATMAP_NAME], {INPUT_NAME: pixels})


def compute_in_tensorflow(
    network: Any, layer: int, pixels: NDArray[np.uint8], positive: list[int]
) -> NDArray[np.float32]:
    """HiResCAM by automatic differentiation: of the log-odds of some classes, at the output of a layer."""
    import keras
    import tensorflow as tf

    layers = network.layers[1:] if isinstance(network.layers[0], keras.layers.InputLayer) else network.layers
    chosen = network.layers[layer]
    behind = layers[layers.index(chosen) + 1 :]
    maps = keras.Model(network.inputs[0], chosen.output)(pixels.astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        answer = maps
        for one in behind[:-1]:
            answer = one(answer)
        logits = tf.matmul(answer, behind[-1].kernel) + behind[-1].bias
        if logits.shape[1] == 1:
            odds = logits[:, 0] if positive == [1] else -logits[:, 0]
        else:
            score = tf.reduce_sum(tf.gather(tf.nn.softmax(logits), positive, axis=1), axis=1)
            odds = tf.math.log(score / (1 - score))
    gradient = tape.gradient(odds, maps)
    return np.asarray(tf.nn.relu(tf.reduce_sum(maps * gradient, axis=-1)))


@pytest.mark.parametrize(
    ("build", "labels", "positive", "layer", "cells"),
    [
        (lambda: build_cnn(1), CLASSES[::2], [1], 2, 23),
        (lambda: build_cnn(2), CLASSES[::2], [1], 3, 21),
        (lambda: build_cnn(3), CLASSES[::2], [1], 3, 21),
        (lambda: build_cnn(2, 1, "sigmoid"), CLASSES[::2], [1], 3, 21),
        (lambda: build_cnn(3, 3), CLASSES, [2], 3, 21),
        (lambda: build_cnn(3, 3), CLASSES, [1, 2], 3, 21),
        (lambda: build_cnn(2, 4), FOUR, [2, 3], 3, 21),
        (build_strided_network, CLASSES[::2], [1], 1, 16),
        (build_transfer_network, CLASSES[::2], [1], -4, 4),
    ],
    ids=[
        *("flat", "through a maximum", "through a stage", "sigmoid", "one of three", "two of three", "two of four"),
        *("strided", "backbone"),
    ],
)
def test_it_is_tensorflows_gradient(
    tmp_path: Path, build: Callable[[], Any], labels: tuple[str, ...], positive: list[int], layer: int, cells: int
) -> None:
    """Within a thousandth of the strongest cell, at the layer that has enough cells; the answers stay what they are."""
    network = build()
    pixels = make_images(network.input_shape[1])
    spec = ModelSpec("small", "1", labels, tuple(labels[index] for index in positive), 0.5)

    answers, heatmaps = explain(network, tmp_path, spec)(pixels)

    wanted = compute_in_tensorflow(network, layer, pixels, positive)
    assert heatmaps.shape == wanted.shape == (len(pixels), cells, cells)
    assert wanted.max() > 0.05
    assert np.abs(heatmaps - wanted).max() <= 1e-3 * max(1.0, wanted.max())
    expected = np.asarray(network(pixels.astype(np.float32)))
    assert np.abs(answers[:, -1] - expected[:, -1]).max() < 1e-4


def test_first_class_may_be_the_positive_one(tmp_path: Path) -> None:
    """Which one it is the spec says."""
    network, pixels = build_cnn(1, 1, "sigmoid"), make_images(SIDE)

    _, heatmaps = explain(network, tmp_path, ModelSpec("small", "1", ("stroke", "normal"), ("stroke",), 0.5))(pixels)

    wanted = compute_in_tensorflow(network, 2, pixels, [0])
    assert np.abs(heatmaps - wanted).max() <= 1e-3 * max(1.0, wanted.max())


def test_conversion_writes_the_file_and_a_server_takes_it(converter_options: ConvertOptions, keras_file: Path) -> None:
    """In the manifest, with what it must answer; `verify` looks at it as well."""
    report = convert(replace(converter_options, model=keras_file))

    assert report.heatmap == "in a file of its own, for servers with --explain"
    model = load_model(report.out, EngineOptions(explains=True))
    assert model.explainer is not None
    assert (model.explainer.rows, model.explainer.columns) == (21, 21)
    assert EXPLAIN_FILE in run_module("converter", "verify", str(report.out)).stdout


def test_network_without_a_heatmap_converts_all_the_same(converter_options: ConvertOptions, tmp_path: Path) -> None:
    """It says so, and why; what it answers is served."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(8)
    pixels = keras.Input((SIDE, SIDE, 3))
    maps = layers.Conv2D(8, 3, strides=4, activation="relu")(layers.Rescaling(1 / 255)(pixels))
    attention = layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(maps))
    features = layers.Multiply()([layers.GlobalMaxPooling2D()(maps), attention])
    network = keras.Model(pixels, layers.Dense(2, activation="softmax")(features))
    network.save(tmp_path / "network.keras")

    report = convert(replace(converter_options, model=tmp_path / "network.keras"))

    assert report.heatmap.startswith("none: between its last feature map")
    assert not (report.out / EXPLAIN_FILE).exists()
    assert load_model(report.out, EngineOptions(explains=True)).explainer is None
