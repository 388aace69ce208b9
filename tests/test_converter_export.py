"""What networks hold beside their weights goes into the graph: it has one input, the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from server.models.manifest import MODEL_FILE
from tests.converting import CASES, SIDE, convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow

BYTE_STATISTICS = {"mean": [120.0, 110.0, 100.0], "variance": [3000.0, 2000.0, 1000.0]}


def normalise(k: Any, images: Any) -> Any:
    return k.layers.Normalization(**BYTE_STATISTICS)(images)


def normalise_twice(k: Any, images: Any) -> Any:
    """As EfficientNet does."""
    fractions = k.layers.Rescaling(1 / 255)(images)
    return k.layers.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.229, 0.224, 0.225])(fractions)


def subtract_caffe_means(k: Any, images: Any) -> Any:
    return k.applications.resnet50.preprocess_input(images)


def subtract_torch_means(k: Any, images: Any) -> Any:
    return k.applications.densenet.preprocess_input(images)


def scale_by_hand(k: Any, images: Any) -> Any:
    return images / 127.5 - 1


def build_behind(prepare: Callable[[Any, Any], Any], k: Any) -> Any:
    """A small network behind some preparation of its pixels, in Keras 3 or tf_keras."""
    k.utils.set_random_seed(4)
    images = k.layers.Input((SIDE, SIDE, 3))
    maps = k.layers.Conv2D(8, 3, padding="same", activation="relu")(prepare(k, images))
    return k.Model(images, k.layers.Dense(2, activation="softmax")(k.layers.GlobalAveragePooling2D()(maps)))


@pytest.mark.parametrize("form", ["network.keras", "exported", "keras2.h5"])
@pytest.mark.parametrize(
    "prepare", [normalise, normalise_twice, subtract_caffe_means, subtract_torch_means, scale_by_hand]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_constants_of_preparing_layers_are_in_the_graph(
    prepare: Callable[[Any, Any], Any], form: str, tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """The conversion itself proves that answers agree; the range is read from what they do."""
    import keras
    import tf_keras

    network = build_behind(prepare, tf_keras if form == "keras2.h5" else keras)
    if form == "exported":
        network.export(tmp_path / form, verbose=False)
    else:
        network.save(tmp_path / form)

    report = convert(replace(converter_options, model=tmp_path / form, preprocess=None))

    assert report.preprocess == "0..255"
    assert [given.name for given in onnx.load(report.out / MODEL_FILE).graph.input] == ["image"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_large_constant_is_in_the_graph(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """TensorFlow hands on larger tensors in another way: a mean for each pixel."""
    import keras

    mean = np.linspace(100, 130, SIDE * SIDE * 3, dtype=np.float32).reshape(1, SIDE, SIDE, 3)
    build_behind(lambda k, images: images - keras.ops.convert_to_tensor(mean), keras).export(
        tmp_path / "saved", verbose=False
    )

    report = convert(replace(converter_options, model=tmp_path / "saved", preprocess=None))

    assert report.preprocess == "0..255"
    assert [given.name for given in onnx.load(report.out / MODEL_FILE).graph.input] == ["image"]


@pytest.mark.parametrize("name", ["k3_normalization.keras", "k3_resnet_preprocess_inside.keras"])
def test_files_that_were_refused_convert(name: str, converter_options: ConvertOptions) -> None:
    """Their constants were taken for inputs."""
    if not CASES.is_dir():
        pytest.skip("shared/cases is not beside the checkout: not tried on its files")

    assert convert(replace(converter_options, model=CASES / name, preprocess=None)).preprocess == "0..255"
