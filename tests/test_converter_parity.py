"""Proof of parity: each failure is its own error, with the measured difference."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from converter.errors import (
    ConversionError,
    OutputNamesError,
    OutputShapeError,
    OutputValuesError,
    SourceError,
)
from server.images.preprocess import InputFormat, load_pixels
from tests.converting import LABELS, SIDE, build_network, convert, save_network
from tests.fakes import sha256_hex

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow


def record(model: Path, converter_images: Path, shift: float = 0.0, labels: tuple[str, ...] = LABELS) -> None:
    """Writes what training writes: the Keras answers on files."""
    import keras

    trained = keras.models.load_model(model, compile=False)
    entries = []
    for file in sorted(converter_images.iterdir()):
        data = file.read_bytes()
        pixels = load_pixels(data, InputFormat(SIDE, SIDE)).array[np.newaxis].astype(np.float32)
        answer = np.asarray(trained(pixels, training=False))[0]
        probabilities = [float(answer[0] - shift), float(answer[1] + shift)]
        entries.append({"file": file.name, "sha256": sha256_hex(data), "probabilities": probabilities})
    (model.parent / "reference.json").write_text(json.dumps({"labels": labels, "images": entries}))


def test_answers_on_files_are_those_that_training_recorded(
    tmp_path: Path, converter_options: ConvertOptions, converter_images: Path
) -> None:
    """From the bytes of the files, as the server starts; a file that was changed since is not compared."""
    path = save_network(tmp_path)
    record(path, converter_images)
    report = convert(replace(converter_options, model=path))
    assert report.recorded == 12

    record(path, converter_images, shift=0.001)
    with pytest.raises(OutputValuesError, match="training recorded"):
        convert(replace(converter_options, model=path, force=True))

    record(path, converter_images, labels=("stroke", "normal"))
    with pytest.raises(SourceError, match="--labels"):
        convert(replace(converter_options, model=path, force=True))


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
    keras_file: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One changed weight is found."""

    def change_weight(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        weights = np.frombuffer(tensor.raw_data, np.float32).copy()
        weights += 0.01
        tensor.raw_data = weights.tobytes()

    alter_export(monkeypatch, change_weight)

    with pytest.raises(OutputValuesError, match=r"differ by [\d.e-]+ from the source model's \(allowed: 1e-05\)"):
        convert(replace(converter_options, model=keras_file))
    assert not converter_options.out.exists()


def test_wrong_output_name_is_refused(
    keras_file: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract's names are checked by the class that serves."""
    from converter.export import rename_output

    alter_export(monkeypatch, lambda model: rename_output(model.graph, "dense_1"))

    with pytest.raises(OutputNamesError, match="probabilities"):
        convert(replace(converter_options, model=keras_file))


def test_wrong_shape_is_refused(
    keras_file: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer per image, whatever the batch."""
    from server.models.runtime import OnnxModel

    run = OnnxModel.run
    monkeypatch.setattr(OnnxModel, "run", lambda model, pixels: run(model, pixels)[:1])

    with pytest.raises(OutputShapeError, match=r"in batches the shape is \(2, 2\), the source.s is \(8, 2\)"):
        convert(replace(converter_options, model=keras_file))


def test_logits_are_refused(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """A model without softmax gives no probabilities, and the message says so."""
    build_network(activation="linear").save(tmp_path / "logits.keras")

    with pytest.raises(OutputValuesError, match="--activation softmax"):
        convert(replace(converter_options, model=tmp_path / "logits.keras"))


def test_masks_and_hidden_files_are_no_images(tmp_path: Path, converter_images: Path) -> None:
    """Parity is proven on slices alone, and what was left out of the folder is said."""
    from converter.verify import load_images

    shutil.copytree(converter_images, tmp_path / "slices")
    for name in (".lesions/0.png", "__MACOSX/0.png", "._0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image at all")
    said: list[str] = []

    images = load_images(tmp_path, InputFormat(SIDE, SIDE), said.append)

    assert len(images) == 12
    assert said == [f"left out: 3 hidden or system files of {tmp_path}"]


def test_folder_without_images_is_one_line(tmp_path: Path) -> None:
    """Masks alone prove nothing; a folder that is not there is named."""
    from converter.verify import load_images

    (tmp_path / ".lesions").mkdir()
    (tmp_path / ".lesions" / "0.png").write_bytes(b"")

    with pytest.raises(ConversionError, match=r"in it \(left out: 1 hidden or system file\); parity"):
        load_images(tmp_path, InputFormat(SIDE, SIDE))
    with pytest.raises(ConversionError, match="nowhere: No such file or directory"):
        load_images(tmp_path / "nowhere", InputFormat(SIDE, SIDE))


def test_every_image_is_asked_for_alone_and_some_in_batches(
    keras_file: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that is wrong in a batch is so on any image, and a large network takes its time for each."""
    from server.models.runtime import OnnxModel

    asked: list[int] = []
    run = OnnxModel.run

    def run_counted(model: OnnxModel, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(len(pixels))
        return run(model, pixels)

    monkeypatch.setattr(OnnxModel, "run", run_counted)
    convert(replace(converter_options, model=keras_file))

    assert asked == [1] * 12 + [4] * 2 + [1] * 8 + [4] * 2
