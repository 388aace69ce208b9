"""Conversions with an outlier score, of both kinds of network that are trained here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.images.dicom.window import BRAIN
from server.models.engines.engine import EngineOptions
from server.models.manifest import INT8_FILE, read_manifest
from server.models.runtime import load_model
from tests.backbones import build_tiny_base
from tests.converting import SIDE, convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("steady_speed")]


def save_residual(folder: Path) -> Path:
    """Residual stages, an average and a dense layer, as ResNet-50 with its head."""
    import keras

    keras.utils.set_random_seed(4)
    pixels = keras.layers.Input((SIDE, SIDE, 3))
    maps = build_tiny_base(keras.layers.Rescaling(1 / 255)(pixels))
    answer = keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalAveragePooling2D()(maps))
    keras.Model(pixels, answer).save(folder / "residual.keras")
    return folder / "residual.keras"


@pytest.mark.parametrize("kind", ["cnn", "residual"])
def test_conversion_adds_a_score_to_both_files(
    kind: str, keras_file: Path, calibration_slices: Path, converter_options: ConvertOptions, tmp_path: Path
) -> None:
    """Fitted to the slices that INT8 is calibrated on; what it says is verified at each start as the answer is."""
    options = replace(
        converter_options,
        model=keras_file if kind == "cnn" else save_residual(tmp_path),
        colour="grey",
        window=("40,80",),
        outlier=True,
        int8=True,
        calibrate=calibration_slices,
    )

    report = convert(options)

    manifest = read_manifest(report.out)
    precisions = ["fp32", *(["int8"] if INT8_FILE in manifest.files else [])]
    assert kind == "residual" or precisions == ["fp32", "int8"], report.int8_failure
    known = np.random.default_rng(1).integers(80, 120, (1, SIDE, SIDE, 1)).astype(np.uint8)
    strange = np.where(np.indices((1, SIDE, SIDE, 1)).sum(axis=0) % 12 < 6, 255, 0).astype(np.uint8)
    for precision in precisions:
        model = load_model(report.out, EngineOptions(precision=precision))
        assert model.spec == report.spec
        assert model.spec.windows == (BRAIN,)
        assert model.score(known).outlier[0] < model.spec.outlier_threshold < model.score(strange).outlier[0]
    assert all(vector.outlier_score > 0 for vector in manifest.golden)


def test_int8_variant_that_knows_other_outliers_is_left_out(
    keras_file: Path, calibration_slices: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that answers otherwise is: the fp32 model is installed, with its score."""
    monkeypatch.setattr("converter.outlier.surgery.LEAST_AGREEMENT", 2)
    monkeypatch.setattr("converter.outlier.surgery.FEW", -100)

    report = convert(
        replace(converter_options, model=keras_file, outlier=True, int8=True, calibrate=calibration_slices)
    )

    assert "whether they are outliers" in report.int8_failure
    assert INT8_FILE not in read_manifest(report.out).files
    assert load_model(report.out).spec.outlier_threshold > 0


@pytest.mark.parametrize("changes", [{"calibrate": Path("slices")}, {"window": ("40,80", "75,215")}])
def test_settings_without_what_they_are_for_are_refused(
    changes: dict[str, Any], converter_options: ConvertOptions
) -> None:
    """Before anything is loaded."""
    with pytest.raises(ValueError, match="--"):
        replace(converter_options, **changes)
