"""The bound of parity: as wide as the model in hand varies by itself, and orders below any real fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from converter.errors import OutputValuesError
from converter.pixels.preprocess import Preprocess
from server.images.preprocess import InputFormat
from server.models.runtime import Scores
from tests.converting import LABELS, SIDE, convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions
    from converter.source import SourceModel

pytestmark = pytest.mark.tensorflow


def build_trained(gain: float) -> Any:
    """Batch statistics that have seen images, and a head whose confidence, and rounding, grow with ``gain``."""
    import keras

    from converter.verify import make_random_images

    keras.utils.set_random_seed(5)
    pixels = keras.Input((SIDE, SIDE, 3))
    values = keras.layers.Rescaling(1 / 255)(pixels)
    for filters in (8, 8, 16, 16):
        values = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(values)
        values = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.0)(values))
    features = keras.layers.GlobalAveragePooling2D()(values)
    model = keras.Model(pixels, keras.layers.Dense(2, activation="softmax", name="head")(features))
    shown = np.random.RandomState(1).randint(0, 256, (16, 1, 1, 3)) * np.ones((16, SIDE, SIDE, 3), np.float32)
    model(shown, training=True)
    # One of the images of the proof gets an answer in the middle, where its rounding shows most.
    middle = make_random_images(InputFormat(SIDE, SIDE))[-1:].astype(np.float32)
    centre = np.asarray(keras.Model(pixels, features)(middle))
    # Differences of features are small beside the features themselves: their rounding grows with them.
    direction = np.random.RandomState(2).normal(size=16).astype(np.float32) * gain
    weights = np.stack([-direction, direction], axis=1)
    model.get_layer("head").set_weights([weights, -(centre @ weights)[0]])
    return model


def test_model_that_varies_by_itself_is_allowed_as_much(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """Rounding that a confident head makes large in the source is no fault of the conversion; the manifest says it."""
    build_trained(gain=10).save(tmp_path / "confident.keras")

    report = convert(replace(converter_options, model=tmp_path / "confident.keras"))

    parity = json.loads((report.out / "manifest.json").read_text())["parity"]
    assert max(parity["image_difference"], parity["random_difference"]) <= parity["allowed"]
    assert 1e-5 < parity["allowed"] == pytest.approx(min(16 * parity["source_variation"], 1e-4))


def change_export(monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], None]) -> None:
    """Makes the export wrong, as a bug of the exporter would."""
    import converter.convert

    export = converter.convert.export_model

    def export_wrongly(*args: Any, **options: Any) -> onnx.ModelProto:
        model = export(*args, **options)
        change(model)
        return model

    monkeypatch.setattr(converter.convert, "export_model", export_wrongly)


def change_first_weights(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[onnx.ModelProto], None]:
    """A change of the weights of the convolution that takes pixels."""

    def apply(model: onnx.ModelProto) -> None:
        name = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
        tensor = next(item for item in model.graph.initializer if item.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(tensor))), name))

    return apply


FAULTS = {
    "second division by 255": change_first_weights(lambda weights: weights / np.float32(255)),
    "swapped channels": change_first_weights(lambda weights: weights[:, ::-1]),
    "rows for columns": change_first_weights(lambda weights: weights.swapaxes(2, 3)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("gain", [1, 10])
def test_real_fault_stays_orders_above_the_widest_bound(
    tmp_path: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch, fault: str, gain: float
) -> None:
    """Of a hesitant and of a confident model, at the ceiling of the bound."""
    import converter.verify

    build_trained(gain).save(tmp_path / "model.keras")
    change_export(monkeypatch, FAULTS[fault])
    found: list[float] = []
    find = converter.verify.find_tolerance
    monkeypatch.setattr(converter.verify, "find_tolerance", lambda variation: found.append(find(variation)) or found[0])

    with pytest.raises(OutputValuesError, match=r"differ by") as refused:
        convert(replace(converter_options, model=tmp_path / "model.keras"))

    difference = float(str(refused.value).split("differ by ")[1].split(" ")[0])
    assert difference > 100 * max(found)


@pytest.mark.parametrize(
    ("variation", "allowed"), [(0.0, 1e-5), (5e-7, 1e-5), (5e-6, 8e-5), (1.0, 1e-4), (float("nan"), 1e-5)]
)
def test_bound_follows_the_source_between_two_ends(variation: float, allowed: float) -> None:
    """Whatever the source does, no less than 1e-5 and no more than 1e-4 is allowed."""
    from converter.verify import find_tolerance

    assert find_tolerance(variation) == pytest.approx(allowed)


class Answers:
    """A converted model that gives prepared probabilities of the positive class."""

    def __init__(self, positive: list[float], threshold: float) -> None:
        from server.models.contract import ModelSpec

        self._rows = np.array([[1 - p, p] for p in positive], np.float32)
        self.batches: list[int] = []
        self.spec = ModelSpec("small", "1", LABELS, ("stroke",), threshold)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One row an image, which is told by its first pixel."""
        self.batches.append(len(images))
        return self._rows[images[:, 0, 0, 0]]


def make_source(positive: list[float]) -> SourceModel:
    """The same for the trained model."""
    import tensorflow as tf

    from converter.source import SourceModel

    rows = np.array([[1 - p, p] for p in positive], np.float32)
    return SourceModel(lambda images: tf.gather(rows, tf.cast(images[:, 0, 0, 0], tf.int32)), 1, 1, 3, 2, True, "fake")


@pytest.mark.parametrize(("wanted", "refused"), [(0.50003, True), (0.500004, False)])
def test_label_may_change_only_at_the_threshold(wanted: float, refused: bool) -> None:
    """Within the bound of the probabilities, but farther from the threshold than the source varies: refused."""
    from converter.verify import measure_difference

    images = np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3)
    model: Any = Answers([0.1, 0.49999], threshold=0.5)
    expected = np.array([[1 - p, p] for p in (0.1, wanted)], np.float32)

    def compare() -> tuple[float, int]:
        return measure_difference(model, make_source([0.1, wanted]), images, expected, "images", 1e-5)

    if refused:
        with pytest.raises(OutputValuesError, match=r"1 of 2 get another label .* threshold 0\.5 "):
            compare()
    else:
        assert compare()[0] < 2e-5


def test_model_answers_in_batches_and_one_by_one() -> None:
    """Few at a time, which a large network has memory for, and the proof still sees what a batch may change."""
    from converter.source import BATCH_SIZE
    from converter.verify import measure_difference

    positive = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7]
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1).repeat(3, axis=3)
    model: Any = Answers(positive, threshold=0.5)
    expected = np.array([[1 - p, p] for p in positive], np.float32)

    assert measure_difference(model, make_source(positive), images, expected, "images", 1e-5) == (0, 6)
    assert sorted(model.batches) == [1] * 6 + [6 - BATCH_SIZE, BATCH_SIZE]


def test_variation_is_the_largest_between_graph_eager_batch_and_roundings() -> None:
    """A source that answers each of these otherwise varies by all of them."""
    import tensorflow as tf

    from converter.source import SourceModel
    from converter.verify import measure_variation

    images = np.full((2, 1, 1, 3), 100, np.uint8)

    def vary(change: Callable[[Any], Any]) -> float:
        """The variation of a source whose probability is 0.5 and something more."""
        source = SourceModel(
            lambda pixels: tf.fill((tf.shape(pixels)[0], 1), 0.5) + change(pixels), 1, 1, 3, 1, "0..255", "fake"
        )
        return measure_variation(source, images, source.predict(images))

    assert vary(lambda pixels: 0.0) == 0
    assert vary(lambda pixels: 0.125 if tf.executing_eagerly() else 0.0) == 0.125
    assert vary(lambda pixels: tf.where(tf.shape(pixels)[0] == 1, 0.125, 0.0)) == 0.125
    assert vary(lambda pixels: tf.where(tf.reduce_min(pixels) < 100, 0.125, 0.0)) == 0.125


def test_average_over_thousands_of_equal_values_varies_by_what_it_is_off() -> None:
    """As of a white image behind convolutions: another order of adding is the same model, and less is rounded."""
    import tensorflow as tf

    from converter.source import SourceModel
    from converter.verify import measure_variation

    images = np.full((1, 64, 64, 3), 188, np.uint8)
    source = SourceModel(
        lambda pixels: tf.reduce_mean(pixels, axis=[1, 2]), 64, 64, 3, 3, None, "fake", preprocess=Preprocess("0..1")
    )
    average = tf.reduce_mean

    answers = source.predict(images)
    error = float(np.abs(answers - np.float32(188 / 255)).max())

    assert error > 1e-6
    assert measure_variation(source, images, answers) >= 0.8 * error
    assert tf.reduce_mean is average


@pytest.mark.parametrize(("certainty", "asked"), [(0.55, 16), (0.7, 64)])
def test_golden_vectors_are_looked_for_until_the_model_hesitates(certainty: float, asked: int) -> None:
    """A saturated answer would hide a changed weight; where there is no other, the best of all candidates."""
    from converter.model_folder import make_golden_vectors

    asked_for: list[int] = []

    class Model:
        input_format = InputFormat(1, 1)

        def score(self, images: NDArray[np.uint8]) -> Scores:
            asked_for.append(len(images))
            return Scores(np.array([[1 - certainty, certainty]], np.float32), np.zeros(1, np.float32))

    model: Any = Model()

    assert len(make_golden_vectors(model)) == 4
    assert asked_for == [1] * asked


def test_variation_is_measured_where_the_model_is_least_certain(
    keras_file: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a rounding shows most; on other images the bound would be found tighter than the source deserves."""
    import converter.verify
    from converter.source import load_source

    certain: list[NDArray[np.float32]] = []

    def measure(source: SourceModel, images: NDArray[np.uint8], answers: NDArray[np.float32]) -> float:
        certain.append(answers.max(axis=1))
        return 0.0

    monkeypatch.setattr(converter.verify, "measure_variation", measure)
    report = convert(replace(converter_options, model=keras_file))
    images = converter.verify.load_images(converter_options.images, InputFormat(SIDE, SIDE))
    expected = load_source(keras_file).predict(images)

    assert report.parity.allowed == converter.verify.LEAST_TOLERANCE
    np.testing.assert_allclose(np.sort(certain[-1]), np.sort(expected.max(axis=1))[:4])
