"""The sanity check of Adebayo et al. (2018): a heatmap that stays the same when the network's weights are taken away
shows the image, not what the network made of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from converter.graph.heatmap import add_heatmap
from server.images.preprocess import load_pixels
from server.models.contract import HEATMAP_NAME, INPUT_NAME
from server.models.runtime import OnnxModel
from tests.fakes import BUNDLED, ROOT

MODEL = onnx.load(BUNDLED / "model.onnx")
SEEDS = range(5)


@cache
def load_samples() -> NDArray[np.uint8]:
    """The synthetic slices of the repository as the bundled model sees them: uint8 [6, 256, 256, 1]."""
    form = OnnxModel(MODEL.SerializeToString(), source="the bundled model").input_format
    return np.stack([load_pixels(path.read_bytes(), form).array for path in sorted((ROOT / "samples").glob("*.png"))])


def compute_heatmaps(model: onnx.ModelProto) -> NDArray[np.float32]:
    """The heatmaps of the samples: float32 [6, rows, columns]."""
    explained = add_heatmap(model)
    assert explained is not None
    session = onnxruntime.InferenceSession(explained.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([HEATMAP_NAME], {INPUT_NAME: one[np.newaxis]})[0] for one in load_samples()])


def list_layers() -> list[str]:
    """Names of the weights of all layers, from the image to the answer."""
    weights = {item.name for item in MODEL.graph.initializer if len(item.dims) in (2, 4)}
    return [name for node in MODEL.graph.node for name in node.input if name in weights]


def shuffle_layers(layers: list[str], seed: int) -> onnx.ModelProto:
    """The model with the weights of some layers in any order: their values are as before, what they have learned is
    gone."""
    random = np.random.RandomState(seed)
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    for item in model.graph.initializer:
        if item.name in layers:
            values = numpy_helper.to_array(item)
            item.CopyFrom(numpy_helper.from_array(random.permutation(values.ravel()).reshape(values.shape), item.name))
    return model


def rank(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Ranks of values, where those that are equal share theirs: much of a heatmap is 0."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places.ravel()]
    return ranks


def correlate(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean over the images of Spearman's rank correlation of their heatmaps."""
    pairs = zip(first, second, strict=True)
    return float(np.mean([np.corrcoef(rank(one), rank(other))[0, 1] for one, other in pairs]))


def measure(layers: list[str]) -> float:
    """How much of the trained model's heatmaps is left without what some layers have learned: the mean of 5 orders."""
    trained = compute_heatmaps(MODEL)
    return float(np.mean([correlate(trained, compute_heatmaps(shuffle_layers(layers, seed))) for seed in SEEDS]))


def test_same_weights_give_the_same_heatmaps() -> None:
    """Otherwise the figures below would say nothing."""
    assert correlate(compute_heatmaps(MODEL), compute_heatmaps(shuffle_layers([], 0))) == pytest.approx(1)


@pytest.mark.parametrize("part", ["head", "backbone", "all"])
def test_other_weights_give_other_heatmaps(part: str) -> None:
    """Head, convolutions, or all of them: little of the heatmap is left. The figures are in docs/explain.md."""
    layers = list_layers()
    chosen = {"head": layers[-2:], "backbone": layers[:-2], "all": layers}[part]

    left = measure(chosen)

    print(f"{part}: correlation {left:.2f}")
    assert left < 0.35
