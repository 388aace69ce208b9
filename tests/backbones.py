"""Backbones of a few small stages, in place of ours where a test trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from training.fit import efficientnet
from training.fit.efficientnet import Stage
from training.fit.models import BACKBONES

TINY_STAGES = (Stage(1, 3, 2, 1, 8), Stage(1, 3, 2, 2, 8))
"""Of EfficientNet-Lite0: a block that stays as it is, and one that can be trained."""


def build_tiny_base(pixels: Any) -> Any:
    """Five stages of a convolution and batch normalisation, the later ones residual; named as ResNet-50 names them."""
    from keras import layers

    answer = pixels
    for stage in range(1, 6):
        stride, size = (8, 9) if stage == 1 else (2 if stage < 5 else 1, 3)
        block = layers.Conv2D(8, size, strides=stride, padding="same", name=f"conv{stage}_conv")(answer)
        block = layers.BatchNormalization(epsilon=1.001e-5, name=f"conv{stage}_bn")(block)
        answer = layers.Activation("relu", name=f"conv{stage}_relu")(
            layers.Add()([block, answer]) if stage == 5 else block
        )
    return answer


def randomise_statistics(network: Any, seed: int = 0) -> None:
    """Gives batch normalisation scales, shifts and statistics as trained weights have them."""
    import keras

    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape[0]
            layer.set_weights([rng.uniform(low, high, count) for low, high in ((0.5, 1.5), (-1, 1), (-1, 1), (0.5, 2))])


def save_published(network: Any, path: Path) -> None:
    """Writes a network's weights in the layout of Keras's published files: a whole model's, one level up."""
    whole = path.with_name("whole.h5")
    network.save(whole)
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
        target.attrs.update(source["model_weights"].attrs)


@contextmanager
def use_tiny_backbone(name: str = "resnet50") -> Iterator[None]:
    """Puts a small backbone in the place of one of ours."""
    with pytest.MonkeyPatch.context() as patch:
        if name == "efficientnet-lite0":
            patch.setattr(efficientnet, "STAGES", TINY_STAGES)
            patch.setattr(efficientnet, "TOP_CHANNELS", 16)
        else:
            patch.setitem(BACKBONES, name, replace(BACKBONES[name], build=build_tiny_base))
        yield
