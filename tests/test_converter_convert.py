"""From trained Keras models to what the server loads, with proof."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from converter.cli import main
from converter.errors import (
    AccuracyError,
    ConversionError,
    InputRangeError,
    OutputNamesError,
    OutputShapeError,
    OutputValuesError,
    SourceError,
    TargetError,
)
from server.images.preprocess import InputFormat, load_pixels
from server.machine.processors import find_target
from server.models.contract import METADATA_KEY, ModelSpec
from server.models.manifest import INT8_FILE, MANIFEST_FILE, MODEL_FILE, Manifest
from server.models.runtime import load_model
from tests.fakes import ROOT, encode, make_slice, run_module, sha256_hex

if TYPE_CHECKING:
    from converter.convert import ConversionReport, ConvertOptions

pytestmark = pytest.mark.tensorflow

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


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen decodable slices of different brightness, PNG and JPEG."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(12):
        image_format = ("PNG", "JPEG")[index % 2]
        (folder / f"{index}.{image_format.lower()}").write_bytes(
            encode(make_slice(20 + 18 * index, side=64, seed=index), image_format)
        )
    return folder


@pytest.fixture
def options(tmp_path: Path, images: Path) -> ConvertOptions:
    """Everything but the model."""
    from converter.convert import ConvertOptions

    return ConvertOptions(
        model=tmp_path / "missing.keras",
        out=tmp_path / "models" / "small" / "1",
        labels=LABELS,
        positive="stroke",
        threshold=0.05,
        input_range="0..255",
        images=images,
    )


@pytest.mark.parametrize("save", [save_keras, save_h5, save_keras2_h5, save_exported, save_keras2_saved_model])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_kind_of_source_answers_the_same_after_conversion(
    save: Callable[[Path], tuple[Path, Any]], tmp_path: Path, options: ConvertOptions, images: Path
) -> None:
    """Keras and the served model agree to 1e-5 on decoded files, and the contract holds."""
    import keras

    path, trained = save(tmp_path)

    report = convert(replace(options, model=path))

    model = load_model(report.out)
    pixels = np.stack(
        [load_pixels(file.read_bytes(), InputFormat(SIDE, SIDE)).array for file in sorted(images.iterdir())]
    )
    expected = np.asarray(trained(pixels.astype(np.float32), training=False))
    assert np.ptp(expected[:, 1]) > 0.05, "the test's network must tell its images apart"
    assert np.abs(model.run(pixels) - expected).max() <= 1e-5
    assert (model.spec.name, model.spec.version, model.spec.labels) == ("small", "1", LABELS)
    assert (model.spec.positive_label, model.spec.threshold) == ("stroke", 0.05)
    assert model.spec.provenance["converted_with_keras"] == keras.__version__


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network, trained on 0..255 with scaling inside."""
    return save_keras(tmp_path_factory.mktemp("keras"))[0]


def test_what_is_written_is_complete_and_checked(keras_file: Path, options: ConvertOptions) -> None:
    """ONNX's checker passes, digests are right, golden vectors are not saturated, nothing else is left behind."""
    report = convert(replace(options, model=keras_file))

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
        MODEL_FILE,
    ]


def test_flipped_weight_bit_of_a_converted_model_is_refused(keras_file: Path, options: ConvertOptions) -> None:
    """End to end: what the converter wrote is what the server verifies."""
    from server.errors import ModelFileError

    path = convert(replace(options, model=keras_file)).out / MODEL_FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)

    with pytest.raises(ModelFileError, match="altered"):
        load_model(path.parent)


def test_spec_beside_the_model_completes_the_flags(tmp_path: Path, options: ConvertOptions) -> None:
    """A training run needs no flags; temperature, metrics and provenance travel on."""
    path, _ = save_keras(tmp_path)
    recorded = ModelSpec(
        "x", "9", LABELS, "stroke", 0.25, temperature=1.7, metrics={"auc": 0.8}, provenance={"data": "phantom"}
    )
    (tmp_path / "spec.json").write_text(recorded.to_json())

    report = convert(replace(options, model=path, labels=(), positive="", threshold=None))

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
    tmp_path: Path, options: ConvertOptions, threshold: float | None, note: str
) -> None:
    """The card of the run is in the model file; other settings than it describes are named above it."""
    path, _ = save_keras(tmp_path)
    recorded = ModelSpec("small", "1", LABELS, "stroke", 0.25, model_card="# Model card\n")
    (tmp_path / "spec.json").write_text(recorded.to_json())

    out = convert(replace(options, model=path, labels=(), positive="", threshold=threshold)).out

    assert load_model(out).spec.model_card == f"{note}# Model card\n"


def test_grey_model_and_single_sigmoid_are_served(tmp_path: Path, options: ConvertOptions) -> None:
    """One channel in, one probability out: both become the contract's form."""
    network = build_network(channels=1, outputs=1, activation="sigmoid")
    network.save(tmp_path / "sigmoid.keras")

    report = convert(replace(options, model=tmp_path / "sigmoid.keras"))

    model = load_model(report.out)
    pixels = make_slice(90, side=SIDE)[np.newaxis, :, :, np.newaxis]
    assert report.spec.colour == "grey"
    expected = float(network(pixels.astype(np.float32), training=False)[0, 0])
    assert model.run(pixels)[0] == pytest.approx([1 - expected, expected], abs=1e-5)


def test_colour_model_that_judges_grey_slices_takes_one_channel(tmp_path: Path, options: ConvertOptions) -> None:
    """Where R = G = B, one channel gives the same answers, and a third of the bytes goes in."""
    path, network = save_keras(tmp_path)

    report = convert(replace(options, model=path, colour="grey"))

    model = load_model(report.out)
    pixels = make_slice(90, side=SIDE)[np.newaxis, :, :, np.newaxis]
    assert model.input_format.channels == 1
    expected = np.asarray(network(np.repeat(pixels, 3, axis=3).astype(np.float32), training=False))
    assert model.run(pixels) == pytest.approx(expected, abs=1e-5)


# --- INT8 (test_converter_quantize.py has the details) ---------------------------------------------------------------


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """Slices of every brightness, one folder a class."""
    for label, first in (("normal", 10), ("stroke", 130)):
        folder = tmp_path / "slices" / label
        folder.mkdir(parents=True)
        for index in range(60):
            (folder / f"{index:03}.png").write_bytes(encode(make_slice(first + index, side=SIDE, seed=index)))
    return tmp_path / "slices"


def test_int8_variant_is_written_beside_its_source_with_its_figures(
    tmp_path: Path, options: ConvertOptions, calibration: Path
) -> None:
    """The manifest has digest, target, own answers and the gate's figures; the report has them too."""
    path, _ = save_keras(tmp_path)

    report = convert(replace(options, model=path, colour="grey", int8=True, calibrate=calibration))

    manifest = Manifest.from_json((report.out / MANIFEST_FILE).read_text())
    record = manifest.files[INT8_FILE]
    assert record.sha256 == sha256_hex((report.out / INT8_FILE).read_bytes())
    assert record.target == find_target()
    assert len(record.probabilities) == len(manifest.golden)
    assert record.gate["held_out"]["slices"] == 80
    assert record.gate["held_out"]["agreement_at_half"] >= 0.995
    assert report.int8 == {"size": record.size, "target": record.target, **record.gate}


def test_variant_that_fails_the_gate_leaves_nothing_behind(
    tmp_path: Path, options: ConvertOptions, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the variant nor the model it was made from is written."""
    monkeypatch.setattr("converter.int8.gate.MOST_MEAN_DIFFERENCE", -1.0)
    path, _ = save_keras(tmp_path)

    with pytest.raises(AccuracyError):
        convert(replace(options, model=path, int8=True, calibrate=calibration))

    assert not options.out.exists()
    assert not options.out.parent.exists()


# --- the classic error: dividing by 255 twice, or not at all ---------------------------------------------------------


def save_network(folder: Path, **options: bool) -> Path:
    path = folder / "network.keras"
    build_network(**options).save(path)
    return path


def test_range_is_read_from_a_rescaling_layer(tmp_path: Path, options: ConvertOptions) -> None:
    """A model that scales inside needs no flag."""
    path = save_network(tmp_path, rescaling=True)

    assert convert(replace(options, model=path, input_range=None)).input_range == "0..255"


def test_range_is_read_from_a_mean_that_is_subtracted(tmp_path: Path) -> None:
    """Channel means of bytes, as ImageNet's networks subtract them, say what the model takes; small offsets do not."""
    import keras

    from converter.source import load_source

    for offset, expected in (([-123.68, -116.779, -103.939], True), ([-0.5, -0.5, -0.5], False)):
        layers = [keras.layers.Rescaling(1.0, offset=offset), keras.layers.GlobalAveragePooling2D()]
        keras.Sequential([keras.Input((8, 8, 3)), *layers]).save(tmp_path / "mean.keras")
        assert load_source(tmp_path / "mean.keras").scales_inside is expected


def test_range_that_cannot_be_read_must_be_stated(tmp_path: Path, options: ConvertOptions) -> None:
    """The converter does not guess; the message explains the two choices."""
    path = save_network(tmp_path, rescaling=False)

    with pytest.raises(InputRangeError, match=r"--input-range 0\.\.1"):
        convert(replace(options, model=path, input_range=None))


def test_dividing_a_second_time_is_refused(tmp_path: Path, options: ConvertOptions) -> None:
    """The seed system's error cannot be made: the layer is there to see."""
    path = save_network(tmp_path, rescaling=True)

    with pytest.raises(InputRangeError, match="divide twice"):
        convert(replace(options, model=path, input_range="0..1"))
    assert not options.out.exists()


def test_model_trained_on_0_to_1_gets_its_division_in_the_graph(tmp_path: Path, options: ConvertOptions) -> None:
    """The served model takes bytes all the same."""
    import keras

    path = save_network(tmp_path, rescaling=False)
    trained = keras.models.load_model(path, compile=False)

    report = convert(replace(options, model=path, input_range="0..1"))

    pixels = np.repeat(make_slice(90, side=SIDE)[np.newaxis, :, :, np.newaxis], 3, axis=3)
    expected = np.asarray(trained(pixels.astype(np.float32) / 255, training=False))
    assert np.abs(load_model(report.out).run(pixels) - expected).max() <= 1e-5


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_near_constant_answers_give_a_wrong_range_away(tmp_path: Path, options: ConvertOptions) -> None:
    """A SavedModel hides its layers; that it hardly reacts to its images shows that they were divided twice."""
    model = build_network(rescaling=True)
    model.export(tmp_path / "saved", verbose=False)

    with pytest.raises(InputRangeError, match="nearly the same answer"):
        convert(replace(options, model=tmp_path / "saved", input_range="0..1"))


def record(model: Path, images: Path, shift: float = 0.0, labels: tuple[str, ...] = LABELS) -> None:
    """Writes what training writes: the Keras answers on files."""
    import keras

    trained = keras.models.load_model(model, compile=False)
    entries = []
    for file in sorted(images.iterdir()):
        data = file.read_bytes()
        pixels = load_pixels(data, InputFormat(SIDE, SIDE)).array[np.newaxis].astype(np.float32)
        answer = np.asarray(trained(pixels, training=False))[0]
        probabilities = [float(answer[0] - shift), float(answer[1] + shift)]
        entries.append({"file": file.name, "sha256": sha256_hex(data), "probabilities": probabilities})
    (model.parent / "reference.json").write_text(json.dumps({"labels": labels, "images": entries}))


def test_answers_on_files_are_those_that_training_recorded(
    tmp_path: Path, options: ConvertOptions, images: Path
) -> None:
    """From the bytes of the files, as the server starts; a file that was changed since is not compared."""
    path = save_network(tmp_path)
    record(path, images)
    report = convert(replace(options, model=path))
    assert report.recorded == 12

    record(path, images, shift=0.001)
    with pytest.raises(OutputValuesError, match="training recorded"):
        convert(replace(options, model=path, force=True))

    record(path, images, labels=("stroke", "normal"))
    with pytest.raises(SourceError, match="--labels"):
        convert(replace(options, model=path, force=True))


# --- proof of parity: each failure its own error, with the measured difference ----------------------------------------


def alter_export(monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], None]) -> None:
    """Makes the export wrong, as a bug of the exporter would."""
    import converter.convert

    export = converter.convert.export_model

    def broken_export(*args: Any, **options: Any) -> onnx.ModelProto:
        model = export(*args, **options)
        change(model)
        return model

    monkeypatch.setattr(converter.convert, "export_model", broken_export)


def test_wrong_values_are_refused_with_the_difference(
    keras_file: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One changed weight is found."""

    def change_weight(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        weights = np.frombuffer(tensor.raw_data, np.float32).copy()
        weights += 0.01
        tensor.raw_data = weights.tobytes()

    alter_export(monkeypatch, change_weight)

    with pytest.raises(OutputValuesError, match=r"differ by [\d.e-]+ from the source model's \(allowed: 1e-05\)"):
        convert(replace(options, model=keras_file))
    assert not options.out.exists()


def test_wrong_output_name_is_refused(
    keras_file: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract's names are checked by the class that serves."""
    from converter.export import rename_output

    alter_export(monkeypatch, lambda model: rename_output(model.graph, "dense_1"))

    with pytest.raises(OutputNamesError, match="probabilities"):
        convert(replace(options, model=keras_file))


def test_wrong_shape_is_refused(keras_file: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer per image, whatever the batch."""
    from server.models.runtime import OnnxModel

    run = OnnxModel.run
    monkeypatch.setattr(OnnxModel, "run", lambda model, pixels: run(model, pixels)[:1])

    with pytest.raises(OutputShapeError, match=r"shape is \(1, 2\)"):
        convert(replace(options, model=keras_file))


def test_logits_are_refused(tmp_path: Path, options: ConvertOptions) -> None:
    """A model without softmax gives no probabilities, and the message says so."""
    build_network(activation="linear").save(tmp_path / "logits.keras")

    with pytest.raises(OutputValuesError, match="softmax"):
        convert(replace(options, model=tmp_path / "logits.keras"))


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing.keras", "text.keras", "half.keras", "half.h5", "renamed.h5", "empty_folder"])
def test_source_that_is_no_model_is_refused(
    name: str, tmp_path: Path, keras_file: Path, options: ConvertOptions
) -> None:
    """Each gets a sentence, and nothing is written."""
    data = keras_file.read_bytes()
    (tmp_path / "text.keras").write_text("not a model")
    (tmp_path / "half.keras").write_bytes(data[: len(data) // 2])
    (tmp_path / "half.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "renamed.h5").write_bytes(data)
    (tmp_path / "empty_folder").mkdir()

    with pytest.raises(SourceError, match=name):
        convert(replace(options, model=tmp_path / name))
    assert not options.out.exists()


def test_wrong_number_of_labels_is_refused(keras_file: Path, options: ConvertOptions) -> None:
    """Labels and outputs must match."""
    with pytest.raises(SourceError, match="answers 2 classes, --labels names 3"):
        convert(replace(options, model=keras_file, labels=("a", "b", "stroke")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ()}, "--labels"),
        ({"positive": "bleed"}, "bleed"),
        ({"threshold": 1.5}, "threshold"),
        ({"images": Path("nowhere")}, "--images"),
    ],
)
def test_unusable_option_is_named(
    change: dict[str, object], message: str, keras_file: Path, options: ConvertOptions
) -> None:
    """The message names what to mend."""
    with pytest.raises(ConversionError, match=message):
        convert(replace(options, model=keras_file, **change))  # type: ignore[arg-type]


def test_existing_model_is_replaced_only_by_force(keras_file: Path, options: ConvertOptions) -> None:
    """Nothing that was written before is lost by accident."""
    first = convert(replace(options, model=keras_file))
    with pytest.raises(TargetError, match="--force"):
        convert(replace(options, model=keras_file, threshold=0.5))
    assert load_model(first.out).spec.threshold == 0.05

    convert(replace(options, model=keras_file, threshold=0.5, force=True))

    assert load_model(first.out).spec.threshold == 0.5


def test_failed_replacement_keeps_what_was_there(
    keras_file: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the last moment does not take the old model away."""
    first = convert(replace(options, model=keras_file))
    rename = Path.rename

    def failing_rename(path: Path, target: Path) -> Path:
        if target == options.out and path.name != "replaced":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(TargetError, match="No space left"):
        convert(replace(options, model=keras_file, threshold=0.5, force=True))

    assert load_model(first.out).spec.threshold == 0.05


def test_command_line_reports_and_exits(keras_file: Path, tmp_path: Path, images: Path) -> None:
    """As a user runs it: report on standard output, steps on standard error; an error is one line and exit code 1."""
    out = tmp_path / "models" / "small" / "1"
    flags = ["--labels", "normal,stroke", "--positive", "stroke", "--threshold", "0.05", "--images", str(images)]

    done = run_module("converter", str(keras_file), "-o", str(out), *flags, "--json")
    again = run_module("converter", str(keras_file), "-o", str(out), *flags)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["parity"]["image_difference"] <= 1e-5
    assert report["digest"] == sha256_hex((out / MODEL_FILE).read_bytes())
    told = run_module("converter", "report", str(out), "--json")
    assert json.loads(told.stdout)["files"][MODEL_FILE]["sha256"] == report["digest"]
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.strip().splitlines()[-1].startswith("converter: error:")
    assert "Traceback" not in again.stderr


def test_model_is_installed_whatever_the_outputs_are(keras_file: Path, tmp_path: Path, images: Path) -> None:
    """Nothing that is printed decides over it: a full disk for both, and an encoding without dots."""
    flags = ["--labels", "normal,stroke", "--positive", "stroke", "--threshold", "0.05", "--images", str(images)]
    for number, redirections in enumerate((">/dev/full 2>/dev/full", ">&- 2>&-", "")):
        out = tmp_path / "models" / "small" / str(number)
        command = [sys.executable, "-m", "converter", str(keras_file), "-o", str(out), *flags]
        shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *command]
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, timeout=300, check=False)

        assert done.returncode == 0, done.stderr
        assert (out / MODEL_FILE).is_file()


def test_help_is_quick_and_has_examples() -> None:
    """--help does not wait for TensorFlow."""
    result = run_module("converter", "--help")

    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert run_module("converter").returncode == 2
    assert run_module("converter", "model.keras", "-o", "models/x/1", "--calibrate", "data").returncode == 2


def test_report_tells_what_was_measured(
    tmp_path: Path, options: ConvertOptions, calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parity and gate of an installed model; a damaged file is found before anything is told."""
    path, _ = save_keras(tmp_path)
    convert(replace(options, model=path, int8=True, calibrate=calibration))

    assert main(["report", str(options.out)]) == 0
    told = capsys.readouterr().out
    (options.out / INT8_FILE).write_bytes(b"damaged")
    assert main(["report", str(options.out)]) == 1

    for words in (
        "image difference",
        "calibrated by",
        "no convolution",
        "held out     80 slices: same label",
        "AUC drop",
    ):
        assert words in told
    assert "MODEL_FILE_TRUNCATED" in capsys.readouterr().err
