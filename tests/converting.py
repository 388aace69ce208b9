"""Models for the converter's tests, what they are converted with, and images to compare answers on.

tests/conftest.py loads it as a plugin, for its fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import ROOT, encode, make_slice

if TYPE_CHECKING:
    from converter.convert import ConversionReport, ConvertOptions

CASES = ROOT.parent / "shared" / "cases"
"""Small files that were once got wrong; not everywhere."""

SIDE = 48
LABELS = ("normal", "stroke")


def convert(options: ConvertOptions) -> ConversionReport:
    """Imports what loads TensorFlow only where a test runs: every test process imports this file."""
    from converter.convert import convert

    return convert(options)


def build_network(
    k: Any = None, *, rescaling: bool = True, channels: int = 3, outputs: int = 2, activation: str = "softmax"
) -> Any:
    """A small network like the paper's; ``k`` is Keras 3 or tf_keras (Keras 2)."""
    import keras

    k = k or keras
    k.utils.set_random_seed(3)
    layers = [k.Input((SIDE, SIDE, channels)) if k is keras else k.layers.InputLayer((SIDE, SIDE, channels))]
    if rescaling:
        layers.append(k.layers.Rescaling(1 / 255))
    layers += [
        k.layers.Conv2D(8, 3, activation="relu", kernel_initializer="he_normal"),
        k.layers.MaxPooling2D(2),
        k.layers.Conv2D(8, 3, activation="relu", kernel_initializer="he_normal"),
        k.layers.MaxPooling2D(2),
        k.layers.Flatten(),
        k.layers.Dense(16, activation="relu", kernel_initializer="he_normal"),
        k.layers.Dense(outputs, activation=activation, kernel_initializer=k.initializers.RandomNormal(stddev=0.5)),
    ]
    return k.Sequential(layers)


def save_keras(folder: Path) -> tuple[Path, Any]:
    model = build_network()
    model.save(folder / "model.keras")
    return folder / "model.keras", model


def save_network(folder: Path, **options: bool) -> Path:
    path = folder / "network.keras"
    build_network(**options).save(path)
    return path


@pytest.fixture(scope="session")
def converter_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen decodable slices of different brightness, PNG and JPEG."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(12):
        image_format = ("PNG", "JPEG")[index % 2]
        (folder / f"{index}.{image_format.lower()}").write_bytes(
            encode(make_slice(20 + 18 * index, side=64, seed=index), image_format)
        )
    return folder


@pytest.fixture
def converter_options(tmp_path: Path, converter_images: Path) -> ConvertOptions:
    """Everything but the model."""
    from converter.convert import ConvertOptions

    return ConvertOptions(
        model=tmp_path / "missing.keras",
        out=tmp_path / "models" / "small" / "1",
        labels=LABELS,
        positive=("stroke",),
        threshold=0.05,
        preprocess="0..255",
        images=converter_images,
    )


@pytest.fixture(scope="module")
def steady_speed() -> Iterator[None]:
    """Every INT8 variant is twice as fast as fp32: networks of a test's size may be slower, and nothing is timed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("converter.int8.quantize.compare_speed", lambda variant, reference, image: 2.0)
        yield


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network, trained on 0..255 with scaling inside."""
    return save_keras(tmp_path_factory.mktemp("keras"))[0]


@pytest.fixture(scope="session")
def calibration_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices of every brightness, one folder a class."""
    root = tmp_path_factory.mktemp("calibration") / "slices"
    for label, first in (("normal", 10), ("stroke", 130)):
        folder = root / label
        folder.mkdir(parents=True)
        for index in range(60):
            (folder / f"{index:03}.png").write_bytes(encode(make_slice(first + index, side=SIDE, seed=index)))
    return root
