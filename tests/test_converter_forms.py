"""INT8 variants of the forms that models commonly have, each around the same few convolutions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.models.manifest import INT8_FILE
from tests.converting import SIDE, convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("steady_speed")]


def build_form(form: str) -> Any:
    """A network with batch normalisation and a global average, and what ``form`` names besides."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(4)
    side = SIDE * 2 if form == "resizing" else SIDE
    pixels = keras.Input((side, side, 1 if form == "grey" else 3))
    values = layers.Resizing(SIDE, SIDE)(pixels) if form == "resizing" else pixels
    values = layers.Rescaling(1 / 255)(values)
    if form == "augmentation":
        for augment in (layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomZoom(0.1)):
            values = augment(values)
    relu = {"max_value": 6.0} if form == "relu6" else {}
    convolution = layers.SeparableConv2D if form == "separable" else layers.Conv2D
    for filters in (8, 16):
        values = convolution(filters, 3, padding="same", use_bias=False)(values)
        values = layers.ReLU(**relu)(layers.BatchNormalization()(values))
        if form == "residual":
            more = layers.Conv2D(filters, 3, padding="same", use_bias=False)(values)
            values = layers.ReLU()(layers.Add()([values, layers.BatchNormalization()(more)]))
        if form == "concatenated":
            more = layers.Conv2D(filters, 3, padding="same", activation="relu")(values)
            values = layers.Concatenate()([values, more])
        values = layers.MaxPooling2D()(values)
    values = layers.GlobalAveragePooling2D()(values)
    spread = keras.initializers.RandomNormal(stddev=3)
    if form == "one sigmoid":
        return keras.Model(pixels, layers.Dense(1, activation="sigmoid", kernel_initializer=spread)(values))
    if form == "dense":
        values = layers.Dropout(0.3)(layers.Dense(16, activation="relu")(values))
    return keras.Model(pixels, layers.Dense(2, activation="softmax", kernel_initializer=spread)(values))


FORMS = (
    "plain",
    "one sigmoid",
    "grey",
    "resizing",
    "augmentation",
    "relu6",
    "residual",
    "dense",
    "separable",
    "concatenated",
)


@pytest.mark.parametrize("form", FORMS)
def test_common_form_gets_its_int8_variant(
    tmp_path: Path, converter_options: ConvertOptions, calibration_slices: Path, form: str
) -> None:
    """It passes the gate, and its convolutions are fused: values go into integers and out of them once."""
    build_form(form).save(tmp_path / "form.keras")

    report = convert(replace(converter_options, model=tmp_path / "form.keras", int8=True, calibrate=calibration_slices))

    assert report.int8_failure == ""
    assert report.int8 is not None
    assert (report.out / INT8_FILE).exists()
    # ONNX Runtime pads the three channels between the halves of a separable convolution in fp32.
    most = 2 if form == "separable" else 1
    assert report.int8["nodes_left"]["DequantizeLinear"] <= most + 2 * len(report.int8["fp32_layers"])
    assert report.int8["speed"] == 2


def test_what_the_quantizer_refuses_is_one_line(
    keras_file: Path, converter_options: ConvertOptions, calibration_slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fp32 model is installed, and the report names the fault."""
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    def refuse(self: Any) -> None:
        raise ValueError("Quantization parameters are not specified for param odd:0.")

    monkeypatch.setattr(QDQQuantizer, "quantize_model", refuse)

    report = convert(replace(converter_options, model=keras_file, int8=True, calibrate=calibration_slices))

    assert report.int8 is None
    assert "not specified for param odd:0" in report.int8_failure
    assert "\n" not in report.int8_failure
