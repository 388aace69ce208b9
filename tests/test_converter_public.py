"""Public architectures and what is often left in them convert, each as a small network of its own building blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from server.models.runtime import load_model
from tests.converting import LABELS, convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # both Keras call HDF5 a legacy format
]

SIDE = 32
THREE = ("haemorrhagic", "ischaemic", "normal")


def build_densenet(k: Any) -> Any:
    """DenseNet121 with one block to a stage in place of 6 to 24, as a layer."""
    dense = k.src.applications.densenet.DenseNet
    base = dense([1, 1, 1, 1], include_top=False, weights=None, input_shape=(SIDE, SIDE, 3), pooling="avg")
    pixels = k.Input((SIDE, SIDE, 3))
    return k.Model(pixels, finish(k, base(k.layers.Rescaling(1 / 255)(pixels))))


def build_flat_resnet(k: Any) -> Any:
    """ResNet-50 with two stages, its layers those of the model itself (``base.output``), as notebooks build on it."""
    resnet = k.src.applications.resnet
    pixels = k.Input((SIDE, SIDE, 3))

    def stack(values: Any) -> Any:
        return resnet.stack1(resnet.stack1(values, 8, 2, stride1=1, name="conv2"), 16, 2, name="conv3")

    scaled = k.layers.Rescaling(1 / 255)(pixels)
    base = resnet.ResNet(stack, False, True, "resnet50", include_top=False, weights=None, input_tensor=scaled)
    return k.Model(pixels, finish(k, k.layers.GlobalAveragePooling2D()(base.output)))


def build_augmented(k: Any) -> Any:
    """Layers that work in training alone are part of the saved model."""
    layers = k.layers
    augment = [layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomZoom(0.1), layers.RandomContrast(0.2)]
    pixels = k.Input((SIDE, SIDE, 3))
    values = k.Sequential([*augment, layers.Rescaling(1 / 255)])(pixels)
    values = layers.GaussianNoise(0.1)(layers.Conv2D(8, 3, activation="relu")(values))
    return k.Model(pixels, finish(k, layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(values))))


def build_grey(k: Any) -> Any:
    """One channel, three classes."""
    pixels = k.Input((SIDE, SIDE, 1))
    values = k.layers.Conv2D(8, 3, activation="relu")(k.layers.Rescaling(1 / 255)(pixels))
    return k.Model(pixels, finish(k, k.layers.GlobalAveragePooling2D()(values), classes=3))


def finish(k: Any, values: Any, classes: int = 2) -> Any:
    """A head whose answers differ from image to image."""
    spread = k.initializers.RandomNormal(stddev=2)
    return k.layers.Dense(classes, activation="softmax", kernel_initializer=spread)(values)


def vary_statistics(model: Any) -> None:
    """Gives batch normalisation what training leaves in it: zeros and ones would hide an exchange of two of them."""
    random = np.random.default_rng(0)
    for layer in [part for outer in model.layers for part in (outer, *getattr(outer, "layers", ()))]:
        if type(layer).__name__ == "BatchNormalization":
            ranges = ((0.8, 1.2), (-0.2, 0.2), (-0.2, 0.2), (0.5, 1.5))
            layer.set_weights([random.uniform(low, high, len(layer.get_weights()[0])) for low, high in ranges])


@pytest.mark.parametrize(
    ("build", "module", "name"),
    [
        (build_densenet, "keras", "model.keras"),
        (build_flat_resnet, "tf_keras", "model.h5"),
        (build_augmented, "keras", "model.keras"),
        (build_augmented, "tf_keras", "model.h5"),
        (build_grey, "keras", "model.keras"),
    ],
)
def test_public_form_answers_as_it_did(
    build: Callable[[Any], Any], module: str, name: str, tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """Files of Keras 2 say that TF 2.15 wrote them."""
    k = __import__(module)
    k.utils.set_random_seed(2)
    model = build(k)
    vary_statistics(model)
    model.save(tmp_path / name)
    if module == "tf_keras":
        with h5py.File(tmp_path / name, "r+") as file:
            file.attrs["keras_version"] = "2.15.0"
    labels = THREE if build is build_grey else LABELS

    report = convert(replace(converter_options, model=tmp_path / name, labels=labels, positive=labels[1:2]))

    channels = model.input_shape[-1]
    pixels = np.random.default_rng(1).integers(0, 256, (6, SIDE, SIDE, channels), np.uint8)
    answers = np.asarray(model(pixels.astype(np.float32), training=False))
    assert load_model(report.out).run(pixels) == pytest.approx(answers, abs=1e-4)
    assert np.ptp(answers[:, 0]) > 0.001
    assert report.kind.startswith("Keras 2.15.0" if module == "tf_keras" else "Keras 3")
