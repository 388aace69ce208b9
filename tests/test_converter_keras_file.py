"""Files of Keras 2 are read by Keras 2, weights alone by a network that fits, and reasons are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from converter.errors import SourceError, describe
from server.models.runtime import load_model
from tests.converting import CASES, SIDE, build_network, convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # both call HDF5 a legacy format
]


def make_depthwise(k: Any) -> Any:
    layers = [k.layers.DepthwiseConv2D(3, activation="relu"), k.layers.SeparableConv2D(8, 3, activation="relu")]
    return finish(k, [k.layers.InputLayer((SIDE, SIDE, 3)), k.layers.Rescaling(1 / 255), *layers])


def make_nested(k: Any) -> Any:
    """A backbone with batch normalisation as one layer of a Sequential."""
    backbone = k.Sequential([k.layers.Conv2D(8, 3), k.layers.BatchNormalization(), k.layers.ReLU()])
    return finish(k, [k.layers.InputLayer((SIDE, SIDE, 3)), k.layers.Rescaling(1 / 255), backbone])


def make_operations(k: Any) -> Any:
    """Operations on tensors and slices of them, which are layers of their own in a file of Keras 2."""
    images = k.layers.Input((SIDE, SIDE, 3))
    maps = k.layers.Conv2D(8, 3, activation="relu")(images[:, 4:-4, 4:-4, ::-1] / 127.5 - 1)
    return k.Model(images, k.layers.Dense(2, activation="softmax")(k.layers.GlobalAveragePooling2D()(maps)))


def finish(k: Any, layers: list[Any]) -> Any:
    return k.Sequential([*layers, k.layers.GlobalAveragePooling2D(), k.layers.Dense(2, activation="softmax")])


@pytest.mark.parametrize("name", ["model.h5", "model.hdf5", "model.keras"])
@pytest.mark.parametrize("make", [make_depthwise, make_nested, make_operations])
def test_keras_2_file_converts(
    make: Callable[[Any], Any], name: str, tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """Whatever is in it: the version in the file says which Keras is to read it."""
    import tf_keras

    tf_keras.utils.set_random_seed(5)
    network = make(tf_keras)
    network.save(tmp_path / name)

    report = convert(replace(converter_options, model=tmp_path / name, preprocess=None))

    assert report.kind == f"Keras {tf_keras.__version__} {'.keras' if name == 'model.keras' else '.h5'}"
    pixels = np.random.RandomState(0).randint(0, 256, (4, SIDE, SIDE, 3)).astype(np.uint8)
    expected = np.asarray(network(pixels.astype(np.float32), training=False))
    assert np.abs(load_model(report.out).run(pixels) - expected).max() <= 1e-5


@pytest.mark.parametrize("name", ["k2_depthwise.h5", "k2_nested_backbone_bn.h5", "k2_functional.keras"])
def test_keras_2_files_that_were_refused_convert(name: str, converter_options: ConvertOptions) -> None:
    """Keras 3 had been asked to read them."""
    if not CASES.is_dir():
        pytest.skip("shared/cases is not beside the checkout: not tried on its files")

    assert convert(replace(converter_options, model=CASES / name)).kind.startswith("Keras 2.15.0")


def test_file_without_a_version_is_told_by_its_input_layer(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """Some tools drop attributes when they rewrite HDF5."""
    import tf_keras

    tf_keras.utils.set_random_seed(5)
    make_nested(tf_keras).save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        del file.attrs["keras_version"]
        del file["model_weights"].attrs["keras_version"]

    assert convert(replace(converter_options, model=tmp_path / "model.h5")).kind == "Keras .h5"


def test_missing_keras_2_is_told(
    tmp_path: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of the package."""
    import tf_keras

    build_network(tf_keras).save(tmp_path / "model.h5")
    monkeypatch.setitem(__import__("sys").modules, "tf_keras", None)

    with pytest.raises(SourceError, match="tf-keras reads it"):
        convert(replace(converter_options, model=tmp_path / "model.h5"))


def build_paper_cnn(k: Any) -> Any:
    """Somebody else's: the same layers with weights, written in either Keras."""
    from training.fit.models import CLASSIFIER_UNITS, CNN_FILTERS

    k.utils.set_random_seed(6)
    layers = [k.layers.InputLayer((256, 256, 3)), k.layers.Rescaling(1 / 255)]
    for filters in CNN_FILTERS:
        layers += [
            k.layers.Conv2D(filters, 3, activation="relu", kernel_initializer="he_normal"),
            k.layers.MaxPooling2D(2),
        ]
    layers += [k.layers.Flatten(), k.layers.Dense(CLASSIFIER_UNITS, activation="relu")]
    return k.Sequential([*layers, k.layers.Dense(2, activation="softmax")])


@pytest.mark.parametrize(
    ("keras_module", "name"), [("tf_keras", "w.h5"), ("tf_keras", "w.weights.h5"), ("keras", "w.weights.h5")]
)
def test_weights_alone_load_with_their_architecture(
    keras_module: str, name: str, tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """Three formats in which public work leaves weights; without the flag, the message names it."""
    network = build_paper_cnn(__import__(keras_module))
    network.save_weights(tmp_path / name)
    with pytest.raises(SourceError, match=r"weights alone.* say --architecture cnn or resnet50 or efficientnet-lite0"):
        convert(replace(converter_options, model=tmp_path / name, preprocess=None))

    from converter.source import load_source

    source = load_source(tmp_path / name, architecture="cnn")

    pixels = np.random.RandomState(0).randint(0, 256, (2, 256, 256, 3)).astype(np.float32)
    assert source.input_range == "0..255"
    assert np.abs(source.predict(pixels) - np.asarray(network(pixels, training=False))).max() <= 1e-6


def test_weights_of_another_network_are_refused(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """Keras would load what fits by name and leave the rest random."""
    build_network().save_weights(tmp_path / "w.weights.h5")

    with pytest.raises(SourceError, match=r"weights of another network: 13,\d+ numbers, cnn has 183,682"):
        convert(replace(converter_options, model=tmp_path / "w.weights.h5", architecture="cnn"))


def test_architecture_is_for_weights_alone(keras_file: Path, converter_options: ConvertOptions) -> None:
    """A whole model has its own."""
    with pytest.raises(SourceError, match="leave --architecture out"):
        convert(replace(converter_options, model=keras_file, architecture="cnn"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("plain reason\nmore", "plain reason"),
        (
            "<class 'x'> could not be deserialized properly. Please ensure …\n\nconfig={'module': 'x'}.\n\n"
            "Exception encountered: Could not locate class 'Twice'. Full object config: {'module': None}",
            "Could not locate class 'Twice'.",
        ),
        (
            "Error when deserializing class 'D' using config={'name': 1}.\n\nException encountered: "
            "Unrecognized keyword arguments passed to D: {'groups': 1}",
            "Unrecognized keyword arguments passed to D: {'groups': 1}",
        ),
        (
            "Exception encountered when calling Lambda.call().\n\n\x1b[1mname 'cv2' is not defined\x1b[0m\n\nArguments",
            "Lambda.call(): name 'cv2' is not defined",
        ),
        ("", "ValueError"),
    ],
)
def test_message_keeps_the_line_with_the_reason(text: str, reason: str) -> None:
    """Not the network's description before it."""
    assert describe(ValueError(text)) == reason
