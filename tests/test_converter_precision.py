"""Models of any precision and operator: converted in float32, or refused in a line that names what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converter.errors import SourceError
from server.models.runtime import load_model
from tests.converting import SIDE, build_network, convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow


def build_in(policy: str, k: Any = None) -> Any:
    """A network of the named policy with its answer in float32, as Keras advises; ``k`` is Keras 3 or tf_keras."""
    import keras

    k = k or keras
    set_policy = keras.config.set_dtype_policy if k is keras else k.mixed_precision.set_global_policy
    k.utils.set_random_seed(3)
    set_policy(policy)
    try:
        pixels = k.Input((SIDE, SIDE, 3))
        values = k.layers.Conv2D(8, 3, use_bias=False)(k.layers.Rescaling(1 / 255)(pixels))
        values = k.layers.ReLU()(k.layers.BatchNormalization()(values))
        values = k.layers.LayerNormalization()(k.layers.GlobalAveragePooling2D()(values)) * 2.0
        values = k.layers.Dense(2)(k.layers.Dense(8, activation="gelu")(values))
        return k.Model(pixels, k.layers.Activation("softmax", dtype="float32")(values))
    finally:
        set_policy("float32")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
@pytest.mark.parametrize("form", ["keras", "saved_model"])
def test_models_of_every_precision_are_converted_in_float32(
    tmp_path: Path, converter_options: ConvertOptions, policy: str, form: str
) -> None:
    """The proof is as tight as for any other model, and the graph holds no other floats."""
    model = build_in(policy)
    path = tmp_path / ("model.keras" if form == "keras" else "saved")
    model.save(path) if form == "keras" else model.export(str(path), verbose=False)

    report = convert(replace(converter_options, model=path))

    assert max(report.parity.image_difference, report.parity.random_difference) < 1e-6


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "mixed_bfloat16"])
def test_precision_of_keras_2_is_widened_too(policy: str) -> None:
    """Its layers change their policy by another name; the answers are those of the model to half precision."""
    import tensorflow as tf
    import tf_keras

    from converter.graph.precision import call_in_float32

    model = build_in(policy, tf_keras)
    pixels = tf.constant(np.random.RandomState(0).randint(0, 256, (4, SIDE, SIDE, 3)), tf.float32)
    before = np.asarray(model(pixels, training=False))

    after = np.asarray(call_in_float32(model)(pixels))

    assert after.dtype == np.float32
    assert 0 < np.abs(after - before).max() < 0.02


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_is_converted(tmp_path: Path, converter_options: ConvertOptions, approximate: bool) -> None:
    """By the error function, which tf2onnx knows only in part, and by its approximation."""
    import keras

    model = build_network()
    model.layers[1].activation = lambda x: keras.activations.gelu(x, approximate=approximate)
    path = tmp_path / "saved"
    model.export(str(path), verbose=False)

    report = convert(replace(converter_options, model=path))

    assert report.parity.random_difference < 1e-5
    assert load_model(report.out)


def export_with(folder: Path, make: Any) -> Path:
    """A SavedModel whose answer goes through a function of TensorFlow."""
    import keras
    import tensorflow as tf

    class Odd(keras.layers.Layer):  # type: ignore[misc]
        def call(self, values: Any) -> Any:
            return make(tf, values)

    pixels = keras.Input((SIDE, SIDE, 3))
    values = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(pixels))
    model = keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(Odd(name="odd_one")(values)))
    model.export(str(folder / "saved"), verbose=False)
    return folder / "saved"


@pytest.mark.parametrize(
    ("operator", "make"),
    [
        ("Lgamma", lambda tf, values: tf.math.lgamma(tf.abs(values) + 1)),
        ("Igamma", lambda tf, values: tf.math.igamma(tf.abs(values) + 1, tf.abs(values) + 1)),
    ],
)
def test_unknown_operator_is_named_with_its_layer(
    tmp_path: Path, converter_options: ConvertOptions, operator: str, make: Any
) -> None:
    """One line, with what can be done."""
    with pytest.raises(SourceError, match=rf"{operator} \(in .*odd_one.*\).*--opset"):
        convert(replace(converter_options, model=export_with(tmp_path, make)))


def test_what_the_runtime_refuses_is_one_line(
    keras_file: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ONNX Runtime raises on the exported graph, the message says what to try."""
    import converter.export

    def refuse(model: Any) -> Any:
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel for node conv_1\nmore")

    monkeypatch.setattr(converter.export, "canonicalise", refuse)
    with pytest.raises(SourceError, match=r"no kernel for node conv_1; try another --opset"):
        convert(replace(converter_options, model=keras_file))


def test_layer_that_fails_on_images_is_one_line(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """The model's own fault is told as such."""

    def fail(tf: Any, values: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_less(values, -1e9, message="too bright")]):
            return tf.identity(values)

    with pytest.raises(SourceError, match="itself fails on images"):
        convert(replace(converter_options, model=export_with(tmp_path, fail)))
