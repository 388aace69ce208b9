"""The classic error of dividing by 255 twice, or not at all: the range is read, stated, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converter.errors import (
    InputRangeError,
)
from server.models.runtime import load_model
from tests.converting import SIDE, build_network, convert, save_network
from tests.fakes import make_slice

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow


def test_range_is_read_from_a_rescaling_layer(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """A model that scales inside needs no flag."""
    path = save_network(tmp_path, rescaling=True)

    assert convert(replace(converter_options, model=path, preprocess=None)).preprocess == "0..255"


def test_range_is_read_from_a_mean_that_is_subtracted(tmp_path: Path) -> None:
    """Channel means of bytes, as ImageNet's networks subtract them, say what the model takes; small offsets do not."""
    import keras

    from converter.source import load_source

    for offset, expected in (([-123.68, -116.779, -103.939], "0..255"), ([-0.5, -0.5, -0.5], None)):
        layers = [keras.layers.Rescaling(1.0, offset=offset), keras.layers.GlobalAveragePooling2D()]
        keras.Sequential([keras.Input((8, 8, 3)), *layers]).save(tmp_path / "mean.keras")
        assert load_source(tmp_path / "mean.keras").input_range == expected


def test_range_that_cannot_be_read_must_be_stated(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """The converter does not guess; the message explains the two choices."""
    path = save_network(tmp_path, rescaling=False)

    with pytest.raises(InputRangeError, match=r"--preprocess 0\.\.1"):
        convert(replace(converter_options, model=path, preprocess=None))


def test_dividing_a_second_time_is_refused(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """The seed system's error cannot be made: the layer is there to see."""
    path = save_network(tmp_path, rescaling=True)

    with pytest.raises(InputRangeError, match="divide twice"):
        convert(replace(converter_options, model=path, preprocess="0..1"))
    assert not converter_options.out.exists()


def test_model_trained_on_0_to_1_gets_its_division_in_the_graph(
    tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """The served model takes bytes all the same."""
    import keras

    path = save_network(tmp_path, rescaling=False)
    trained = keras.models.load_model(path, compile=False)

    report = convert(replace(converter_options, model=path, preprocess="0..1"))

    pixels = np.repeat(make_slice(90, side=SIDE)[np.newaxis, :, :, np.newaxis], 3, axis=3)
    expected = np.asarray(trained(pixels.astype(np.float32) / 255, training=False))
    assert np.abs(load_model(report.out).run(pixels) - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([("Normalization", {"mean": 0.2, "variance": 0.05})], "0..1"),
        ([("Rescaling", {"scale": 2.0, "offset": -1.0})], "0..1"),
        ([("Rescaling", {"scale": 255.0}), ("Normalization", {"mean": 40.0, "variance": 900.0})], "0..1"),
        ([("Normalization", {"mean": 40.0, "variance": 900.0})], "0..255"),
        ([("Rescaling", {"scale": -1.0, "offset": 255.0})], "0..255"),
        (
            [("ZeroPadding2D", {}), ("Resizing", {"height": 24, "width": 24}), ("Rescaling", {"scale": 0.01})],
            "0..255",
        ),
        ([("RandomFlip", {}), ("Rescaling", {"scale": 1 / 127.5, "offset": -1.0})], "0..255"),
        ([("Rescaling", {"scale": 127.5, "offset": 127.5})], "-1..1"),
        ([("Activation", {"activation": "tanh"})], None),
        ([("BatchNormalization", {})], None),
        ([], None),
    ],
)
def test_range_is_read_from_what_reaches_the_first_weights(
    layers: list[tuple[str, dict[str, object]]], expected: str | None, tmp_path: Path
) -> None:
    """Whatever layers do it, alone or together; where they show neither, nothing is read."""
    import keras

    from converter.source import load_source

    before = [getattr(keras.layers, name)(**settings) for name, settings in layers]
    behind = [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    keras.Sequential([keras.Input((SIDE, SIDE, 3)), *before, *behind]).save(tmp_path / "model.keras")

    assert load_source(tmp_path / "model.keras").input_range == expected


@pytest.mark.parametrize(("mean", "expected"), [(40.0, "0..255"), (0.2, "0..1")])
def test_range_is_read_from_a_trained_batch_normalisation(mean: float, expected: str, tmp_path: Path) -> None:
    """As first layer it has learnt what the pixels are."""
    import keras

    from converter.source import load_source

    normalisation = keras.layers.BatchNormalization()
    network = keras.Sequential([keras.Input((SIDE, SIDE, 3)), normalisation, keras.layers.Conv2D(4, 3)])
    network.add(keras.layers.GlobalAveragePooling2D())
    ones = np.ones(3, np.float32)
    normalisation.set_weights([ones, 0 * ones, mean * ones, mean**2 * ones])
    network.save(tmp_path / "model.keras")

    assert load_source(tmp_path / "model.keras").input_range == expected


def test_bytes_for_a_model_of_0_to_1_are_refused(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """The other classic error: layers that bring 0..1 to what the weights take get bytes."""
    import keras

    network = build_network(rescaling=False)
    keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Rescaling(2.0, offset=-1.0), network]).save(
        tmp_path / "model.keras"
    )

    with pytest.raises(InputRangeError, match=r"say --preprocess 0\.\.1"):
        convert(replace(converter_options, model=tmp_path / "model.keras", preprocess="0..255"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_saved_model_shows_its_range_too(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """It has no layers, and does the same to its pixels."""
    build_network(rescaling=True).export(tmp_path / "saved", verbose=False)

    with pytest.raises(InputRangeError, match="divide twice"):
        convert(replace(converter_options, model=tmp_path / "saved", preprocess="0..1"))


def test_near_constant_answers_give_a_wrong_range_away(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """Where layers show nothing: that a model hardly reacts to its images shows that they were divided twice."""
    import keras

    curve = [keras.layers.Rescaling(1 / 255), keras.layers.Activation("tanh")]
    keras.Sequential([keras.Input((SIDE, SIDE, 3)), *curve, build_network(rescaling=False)]).save(
        tmp_path / "model.keras"
    )

    with pytest.raises(InputRangeError, match="nearly the same answer"):
        convert(replace(converter_options, model=tmp_path / "model.keras", preprocess="0..1"))
