"""EfficientNet-Lite0: Keras's own layers, the published weights, and what of it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.backbones import randomise_statistics
from tests.torch_files import write_torch_file
from training.errors import TrainingError
from training.fit.efficientnet import list_blocks, list_parts, load_torch_weights
from training.fit.models import BACKBONES, FEATURES, build_efficientnet_lite0
from training.fit.torch_file import read_torch_file

pytestmark = pytest.mark.tensorflow

NAME = "efficientnet-lite0"
BACKBONE = BACKBONES[NAME]
DAISY, PALACE = 985, 698
"""Among the classes of ImageNet."""


@pytest.fixture(scope="module")
def network() -> Any:
    """With random weights and the statistics of a trained network; do not train it."""
    network = build_efficientnet_lite0()
    randomise_statistics(network)
    return network


def make_tensors(network: Any) -> dict[str, NDArray[Any]]:
    """The weights of a network as PyTorch's file has them, its 1,000 classes included."""
    tensors: dict[str, NDArray[Any]] = {"_fc.weight": np.zeros((2, 3), np.float32), "_fc.bias": np.zeros(2, np.float32)}
    for part, convolution, normalisation in list_parts():
        kernel = network.get_layer(f"{part}_conv").get_weights()[0]
        order = (2, 3, 0, 1) if part.endswith("_depthwise") else (3, 2, 0, 1)
        tensors[f"{convolution}.weight"] = np.ascontiguousarray(kernel.transpose(order))
        names = ("weight", "bias", "running_mean", "running_var")
        for name, value in zip(names, network.get_layer(f"{part}_bn").get_weights(), strict=True):
            tensors[f"{normalisation}.{name}"] = value
        tensors[f"{normalisation}.num_batches_tracked"] = np.array(5, np.int64)
    return tensors


def test_it_is_the_published_network(network: Any) -> None:
    """As many parameters as published, less the 1,281,000 of the classes; nothing but layers of Keras."""
    base = 4_652_008 - 1_281_000
    statistics = 42_016
    assert network.count_params() == base + statistics + (1280 * 64 + 64) + (64 * 2 + 2)
    assert network.get_layer(FEATURES).output.shape == (None, 1280)
    assert {type(layer).__module__.split(".")[0] for layer in network.layers} == {"keras"}
    assert network.get_layer("block3b_add").output.shape == (None, 32, 32, 40)
    assert network.get_layer("block5c_add").output.shape == (None, 16, 16, 112)


def test_weights_are_taken_over_by_name(network: Any, tmp_path: Path) -> None:
    """All of them: another network answers the same with them."""
    tensors = make_tensors(network)
    other = build_efficientnet_lite0()
    load_torch_weights(other, write_torch_file(tmp_path / "a.pth", tensors))
    for layer, taken in zip(network.layers, other.layers, strict=True):
        if layer.name not in ("head", "probabilities"):
            assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), taken.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_conv_stem.weight": None}, r"has no _conv_stem\.weight: of another network"),
        ({"_blocks.16._bn0.weight": np.ones(3, np.float32)}, r"has _blocks\.16\._bn0\.weight as well"),
        ({"_bn0.bias": np.ones(31, np.float32)}, "do not fit stem_bn"),
        ({"_bn0.bias": np.full(32, np.nan, np.float32)}, "do not fit stem_bn"),
    ],
    ids=["missing", "more", "shape", "nan"],
)
def test_weights_of_another_network_are_refused(
    change: Mapping[str, Any], message: str, network: Any, tmp_path: Path
) -> None:
    """One line, and which tensor."""
    tensors = {name: value for name, value in {**make_tensors(network), **change}.items() if value is not None}
    path = write_torch_file(tmp_path / "a.pth", tensors)
    with pytest.raises(TrainingError, match=message):
        load_torch_weights(build_efficientnet_lite0(), path)


def test_published_weights_know_a_daisy_and_a_palace() -> None:
    """The proof of all: padding, order, scale of pixels. The file's own classes say what two photographs show."""
    keras = pytest.importorskip("keras")
    from sklearn.datasets import load_sample_images

    path = BACKBONE.published.find()
    network = build_efficientnet_lite0()
    load_torch_weights(network, path)
    tensors = read_torch_file(path)
    assert len(tensors) == 296
    photographs = []
    for photograph in load_sample_images().images:  # china.jpg and flower.jpg
        height, width, _ = photograph.shape
        left = (width - height) // 2
        square = Image.fromarray(photograph[:, left : left + height])
        photographs.append(np.asarray(square.resize((256, 256), Image.Resampling.BICUBIC)))
    features = keras.Model(network.inputs, network.get_layer(FEATURES).output).predict_on_batch(np.stack(photographs))
    logits = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert logits.argmax(axis=1).tolist() == [PALACE, DAISY]


def test_early_blocks_and_depthwise_kernels_stay_frozen(network: Any) -> None:
    """Of the last stages, convolutions over channels are trained with their normalisation; no kernel of one channel."""
    from training.fit.weights import freeze_backbone, list_slow_variables

    freeze_backbone(network, BACKBONE, 2)
    kernels = {f"block6{block}_{part}_conv/kernel" for block in "abcd" for part in ("expand", "project")}
    kernels |= {"block7a_expand_conv/kernel", "block7a_project_conv/kernel", "top_conv/kernel"}
    depthwise = {f"{block}_depthwise_bn" for block in ("block6a", "block6b", "block6c", "block6d", "block7a")}
    normalised = {kernel.replace("_conv/kernel", "_bn") for kernel in kernels} | depthwise
    expected = kernels | {f"{layer}/{part}" for layer in normalised for part in ("gamma", "beta")}
    assert list_slow_variables(network) == expected
    freeze_backbone(network, BACKBONE, len(BACKBONE.stages))
    trained = {variable.path.split("_")[0] for variable in network.trainable_variables if "_conv/" in variable.path}
    assert trained == {name for name, _, _ in list_blocks()} - {"block1a"} | {"top"}


def test_features_live_on_where_weights_move(network: Any) -> None:
    """What a few steps can do to each sum before the last ReLU: all channels 0 for every image, and no gradient left.

    While it is trained the network takes the sums' own mean, and what it is judged by follows.
    """
    import keras

    from training.fit.weights import freeze_backbone

    freeze_backbone(network, BACKBONE, 1)
    kernel, normalisation = network.get_layer("top_conv").kernel, network.get_layer("top_bn")
    before = [variable.numpy() for variable in (kernel, *normalisation.weights)]
    maps = network.get_layer("block7a_project_bn").output
    top = keras.Model(maps, network.get_layer(FEATURES).output)
    values = np.random.default_rng(0).normal(1, 1, (4, 8, 8, 320)).astype(np.float32)
    kernel.assign_sub(np.full(kernel.shape, 0.2, np.float32))
    assert np.mean(top(values, training=False).numpy().max(axis=0) > 0) < 0.1
    assert np.mean(top(values, training=True).numpy().max(axis=0) > 0) == 1
    for _ in range(25):
        top(values, training=True)
    assert np.mean(top(values, training=False).numpy().max(axis=0) > 0) > 0.95
    for variable, value in zip((kernel, *normalisation.weights), before, strict=True):
        variable.assign(value)


@pytest.mark.parametrize(("unfreeze", "cells"), [(5, [8, 16]), (3, [16]), (2, [])])
def test_lesion_heads_stand_where_something_is_trained(unfreeze: int, cells: list[int], network: Any) -> None:
    """A map on frozen layers would teach the network nothing."""
    from training.fit.localisation import add_lesion_heads, find_taps
    from training.fit.weights import freeze_backbone

    freeze_backbone(network, BACKBONE, unfreeze)
    taps = find_taps(network, BACKBONE.taps)
    assert [tap.cell for tap in taps] == cells
    maps = add_lesion_heads(network, taps).outputs[1:]
    assert [tuple(found.shape[1:]) for found in maps] == [(256 // cell, 256 // cell, 1) for cell in cells]


def test_lesion_heads_start_without_an_opinion(network: Any) -> None:
    """Sums of residual blocks are large: random kernels on them would be sure of lesions everywhere and nowhere."""
    from training.fit.localisation import add_lesion_heads
    from training.fit.weights import freeze_backbone

    freeze_backbone(network, BACKBONE, 5)
    image = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3)).astype(np.float32)
    for answers in add_lesion_heads(network, BACKBONE.taps).predict_on_batch(image)[1:]:
        assert np.allclose(answers, 0.018, atol=1e-4)


def test_features_are_the_networks(network: Any) -> None:
    """With normalisation folded into the convolutions, depthwise ones too, the frozen part says the same."""
    import keras

    from training.fit.features import make_extractor

    images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3)).astype(np.float32)
    expected = keras.Model(network.inputs, network.get_layer(FEATURES).output).predict_on_batch(images)
    features = make_extractor(network)(images).numpy()
    assert np.allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_stages_are_bounded_by_the_networks_own(tmp_path: Path) -> None:
    """Six of this one, four of ResNet-50."""
    from training.settings.train import TrainConfig

    config = TrainConfig(data=tmp_path, out=tmp_path / "run", model=NAME, unfreeze=6)
    with pytest.raises(ValueError, match="--unfreeze must be 0 to 4 with resnet50, got 6"):
        replace(config, model="resnet50")
