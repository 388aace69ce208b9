"""From trained Keras models to what the server loads: what is written, and what is replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from converter.errors import (
    TargetError,
)
from server.images.preprocess import InputFormat, load_pixels
from server.models.contract import METADATA_KEY, ModelSpec
from server.models.manifest import EXPLAIN_FILE, MANIFEST_FILE, MODEL_FILE, Manifest
from server.models.runtime import load_model
from tests.converting import LABELS, SIDE, build_network, convert, save_keras
from tests.fakes import make_slice, sha256_hex

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow


@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras calls HDF5 a legacy format; it is the paper's
def save_h5(folder: Path) -> tuple[Path, Any]:
    model = build_network()
    model.save(folder / "model.h5")
    return folder / "model.h5", model


def save_keras2_h5(folder: Path) -> tuple[Path, Any]:
    import tf_keras

    model = build_network(tf_keras)
    model.save(folder / "keras2.h5")
    return folder / "keras2.h5", model


def save_exported(folder: Path) -> tuple[Path, Any]:
    model = build_network()
    model.export(folder / "saved", verbose=False)
    return folder / "saved", model


def save_keras2_saved_model(folder: Path) -> tuple[Path, Any]:
    import tf_keras

    model = build_network(tf_keras)
    model.save(folder / "saved2", save_format="tf")
    return folder / "saved2", model


@pytest.mark.parametrize("save", [save_keras, save_h5, save_keras2_h5, save_exported, save_keras2_saved_model])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_kind_of_source_answers_the_same_after_conversion(
    save: Callable[[Path], tuple[Path, Any]], tmp_path: Path, converter_options: ConvertOptions, converter_images: Path
) -> None:
    """Keras and the served model agree to 1e-5 on decoded files, and the contract holds."""
    import keras

    path, trained = save(tmp_path)

    report = convert(replace(converter_options, model=path))

    model = load_model(report.out)
    pixels = np.stack(
        [load_pixels(file.read_bytes(), InputFormat(SIDE, SIDE)).array for file in sorted(converter_images.iterdir())]
    )
    expected = np.asarray(trained(pixels.astype(np.float32), training=False))
    assert np.ptp(expected[:, 1]) > 0.05, "the test's network must tell its images apart"
    assert np.abs(model.run(pixels) - expected).max() <= 1e-5
    assert (model.spec.name, model.spec.version, model.spec.labels) == ("small", "1", LABELS)
    assert (model.spec.positive_labels, model.spec.threshold) == (("stroke",), 0.05)
    assert model.spec.provenance["converted_with_keras"] == keras.__version__


def test_what_is_written_is_complete_and_checked(keras_file: Path, converter_options: ConvertOptions) -> None:
    """ONNX's checker passes, digests are right, golden vectors are not saturated, nothing else is left behind."""
    report = convert(replace(converter_options, model=keras_file))

    data = (report.out / MODEL_FILE).read_bytes()
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.input] == ["image"]
    assert [o.name for o in model.graph.output] == ["probabilities"]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 0
    spec = ModelSpec.from_json({p.key: p.value for p in model.metadata_props}[METADATA_KEY])
    assert spec == report.spec
    manifest = Manifest.from_json((report.out / MANIFEST_FILE).read_text())
    assert manifest.files[MODEL_FILE].sha256 == sha256_hex(data) == report.digest
    assert len(manifest.golden) >= 2
    assert sorted(path.name for path in report.out.parent.parent.rglob("*") if path.is_file()) == [
        MANIFEST_FILE,
        EXPLAIN_FILE,
        MODEL_FILE,
    ]


def test_flipped_weight_bit_of_a_converted_model_is_refused(
    keras_file: Path, converter_options: ConvertOptions
) -> None:
    """End to end: what the converter wrote is what the server verifies."""
    from server.errors import ModelFileError

    path = convert(replace(converter_options, model=keras_file)).out / MODEL_FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)

    with pytest.raises(ModelFileError, match="altered"):
        load_model(path.parent)


def test_spec_beside_the_model_completes_the_flags(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """A training run needs no flags; temperature, metrics and provenance travel on."""
    path, _ = save_keras(tmp_path)
    recorded = ModelSpec(
        "x", "9", LABELS, ("stroke",), 0.25, temperature=1.7, metrics={"auc": 0.8}, provenance={"data": "phantom"}
    )
    (tmp_path / "spec.json").write_text(recorded.to_json())

    report = convert(replace(converter_options, model=path, labels=(), positive=(), threshold=None))

    assert (report.spec.name, report.spec.version, report.spec.threshold) == ("small", "1", 0.25)
    assert load_model(report.out).spec.temperature == 1.7
    assert report.spec.metrics == {"auc": 0.8}
    assert report.spec.provenance["data"] == "phantom"


@pytest.mark.parametrize(
    ("threshold", "note"),
    [
        (None, ""),
        (0.4, "> Converted with other settings than this card describes: threshold 0.4 (card: 0.25).\n\n"),
    ],
)
def test_model_card_travels_and_says_what_no_longer_holds(
    tmp_path: Path, converter_options: ConvertOptions, threshold: float | None, note: str
) -> None:
    """The card of the run is in the model file; other settings than it describes are named above it."""
    path, _ = save_keras(tmp_path)
    recorded = ModelSpec("small", "1", LABELS, ("stroke",), 0.25, model_card="# Model card\n")
    (tmp_path / "spec.json").write_text(recorded.to_json())

    out = convert(replace(converter_options, model=path, labels=(), positive=(), threshold=threshold)).out

    assert load_model(out).spec.model_card == f"{note}# Model card\n"


def test_grey_model_and_single_sigmoid_are_served(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """One channel in, one probability out: both become the contract's form."""
    network = build_network(channels=1, outputs=1, activation="sigmoid")
    network.save(tmp_path / "sigmoid.keras")

    report = convert(replace(converter_options, model=tmp_path / "sigmoid.keras"))

    model = load_model(report.out)
    pixels = make_slice(90, side=SIDE)[np.newaxis, :, :, np.newaxis]
    assert report.spec.colour == "grey"
    expected = float(network(pixels.astype(np.float32), training=False)[0, 0])
    assert model.run(pixels)[0] == pytest.approx([1 - expected, expected], abs=1e-5)


def test_colour_model_that_judges_grey_slices_takes_one_channel(
    tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """Where R = G = B, one channel gives the same answers, and a third of the bytes goes in."""
    path, network = save_keras(tmp_path)

    report = convert(replace(converter_options, model=path, colour="grey"))

    model = load_model(report.out)
    pixels = make_slice(90, side=SIDE)[np.newaxis, :, :, np.newaxis]
    assert model.input_format.channels == 1
    expected = np.asarray(network(np.repeat(pixels, 3, axis=3).astype(np.float32), training=False))
    assert model.run(pixels) == pytest.approx(expected, abs=1e-5)


def test_existing_model_is_replaced_only_by_force(keras_file: Path, converter_options: ConvertOptions) -> None:
    """Nothing that was written before is lost by accident."""
    first = convert(replace(converter_options, model=keras_file))
    with pytest.raises(TargetError, match="--force"):
        convert(replace(converter_options, model=keras_file, threshold=0.5))
    assert load_model(first.out).spec.threshold == 0.05

    convert(replace(converter_options, model=keras_file, threshold=0.5, force=True))

    assert load_model(first.out).spec.threshold == 0.5


def test_failed_replacement_keeps_what_was_there(
    keras_file: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the last moment does not take the old model away."""
    first = convert(replace(converter_options, model=keras_file))
    rename = Path.rename

    def failing_rename(path: Path, target: Path) -> Path:
        if target == converter_options.out and path.name != "replaced":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(TargetError, match="No space left"):
        convert(replace(converter_options, model=keras_file, threshold=0.5, force=True))

    assert load_model(first.out).spec.threshold == 0.05
