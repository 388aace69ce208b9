"""Sources and options that cannot be converted: each gets a sentence, and nothing is written."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converter.errors import (
    ConversionError,
    SourceError,
)
from tests.converting import SIDE, build_network, convert, save_network

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("name", ["missing.keras", "text.keras", "half.keras", "half.h5", "renamed.h5", "empty_folder"])
def test_source_that_is_no_model_is_refused(
    name: str, tmp_path: Path, keras_file: Path, converter_options: ConvertOptions
) -> None:
    """Each gets a sentence, and nothing is written."""
    data = keras_file.read_bytes()
    (tmp_path / "text.keras").write_text("not a model")
    (tmp_path / "half.keras").write_bytes(data[: len(data) // 2])
    (tmp_path / "half.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "renamed.h5").write_bytes(data)
    (tmp_path / "empty_folder").mkdir()

    with pytest.raises(SourceError, match=name):
        convert(replace(converter_options, model=tmp_path / name))
    assert not converter_options.out.exists()


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 98123456\n"


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", r"is empty \(0 bytes\)"),
        (cut, r"is cut short \([\d,]+ bytes are there\)"),
        (lambda data: POINTER, "is a Git LFS pointer.* git lfs pull"),
        (lambda data: b"\n<!DOCTYPE html><html>", "is a web page"),
        (lambda data: b'{"class_name": "Sequential"}', "is JSON: at best a network without its weights"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_file_that_was_fetched_the_wrong_way_says_so(
    change: Callable[[bytes], bytes], reason: str, name: str, tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """One line with what to do."""
    build_network().save(tmp_path / name)
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))

    with pytest.raises(SourceError, match=rf"{name}: {reason}") as caught:
        convert(replace(converter_options, model=tmp_path / name))
    assert len(str(caught.value).splitlines()) == 1


def test_archive_with_damaged_weights_says_so(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """Its directory may be whole where what it lists is not."""
    path = save_network(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)

    with pytest.raises(SourceError, match=r"is damaged: model\.weights\.h5"):
        convert(replace(converter_options, model=path))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """No comparison would mean anything: the answers differ by nan."""
    network = build_network()
    network.layers[1].set_weights([np.nan * weights for weights in network.layers[1].get_weights()])
    network.save(tmp_path / "model.keras")
    network.export(tmp_path / "saved", verbose=False)

    for name in ("model.keras", "saved"):
        with pytest.raises(SourceError, match=r"its weights .*conv2d.* are not numbers"):
            convert(replace(converter_options, model=tmp_path / name))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: shutil.rmtree(folder / "variables"), "not its weights"),
        (lambda folder: (folder / "variables" / "variables.data-00000-of-00001").unlink(), "not its weights"),
        (lambda folder: os.truncate(folder / "variables" / "variables.data-00000-of-00001", 100), "cut short"),
        (lambda folder: (folder / "variables" / "variables.index").write_bytes(POINTER), "is a Git LFS pointer"),
        (lambda folder: os.truncate(folder / "saved_model.pb", 1000), "cut short"),
        (lambda folder: os.truncate(folder / "saved_model.pb", 0), "is empty"),
        (lambda folder: (folder / "saved_model.pb").unlink(), "there is no saved_model.pb"),
    ],
)
def test_incomplete_folder_says_what_is_missing(
    spoil: Callable[[Path], object], reason: str, tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """In a line of its own for each."""
    build_network().export(tmp_path / "saved", verbose=False)
    spoil(tmp_path / "saved")

    with pytest.raises(SourceError, match=reason) as caught:
        convert(replace(converter_options, model=tmp_path / "saved"))
    assert len(str(caught.value).splitlines()) == 1


def test_folder_with_another_form_in_it_says_which(
    tmp_path: Path, keras_file: Path, converter_options: ConvertOptions
) -> None:
    """A folder around a model file, an unpacked archive, a checkpoint, and the file in a SavedModel."""
    for name in ("around", "unpacked", "checkpoint", "saved"):
        (tmp_path / name).mkdir()
    shutil.copy(keras_file, tmp_path / "around" / "best.keras")
    zipfile.ZipFile(keras_file).extractall(tmp_path / "unpacked")
    (tmp_path / "checkpoint" / "model.index").write_bytes(b"\x00\x01")
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
    for name, reason in (
        ("around", r"say which file in it: .*best\.keras"),
        ("unpacked", r"is an unpacked \.keras archive: pack it"),
        ("checkpoint", r"is a checkpoint"),
        ("checkpoint/model.index", r"is a checkpoint"),
        ("saved/saved_model.pb", r"give its folder: .*saved$"),
    ):
        with pytest.raises(SourceError, match=reason):
            convert(replace(converter_options, model=tmp_path / name))


@pytest.mark.parametrize("name", ["model.keras", "saved"])
def test_two_inputs_are_named(name: str, tmp_path: Path, converter_options: ConvertOptions) -> None:
    """An image and a patient's age, say; the server sends one image."""
    import keras

    image, age = keras.Input((SIDE, SIDE, 3), name="scan"), keras.Input((1,), name="age")
    features = keras.layers.GlobalAveragePooling2D()(image)
    answer = keras.layers.Dense(2, activation="softmax")(keras.layers.Concatenate()([features, age]))
    network = keras.Model([image, age], answer)
    network.export(tmp_path / name, verbose=False) if name == "saved" else network.save(tmp_path / name)

    with pytest.raises(SourceError, match=r"has 2 inputs \((scan, age|age, scan)\).* one of each is needed"):
        convert(replace(converter_options, model=tmp_path / name))


def test_wrong_number_of_labels_is_refused(keras_file: Path, converter_options: ConvertOptions) -> None:
    """Labels and outputs must match."""
    with pytest.raises(SourceError, match="answers 2 classes, --labels names 3"):
        convert(replace(converter_options, model=keras_file, labels=("a", "b", "stroke")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ()}, "--labels"),
        ({"positive": ("bleed",)}, "bleed"),
        ({"threshold": 1.5}, "threshold"),
        ({"images": Path("nowhere")}, "--images"),
    ],
)
def test_unusable_option_is_named(
    change: dict[str, object], message: str, keras_file: Path, converter_options: ConvertOptions
) -> None:
    """The message names what to mend."""
    with pytest.raises(ConversionError, match=message):
        convert(replace(converter_options, model=keras_file, **change))  # type: ignore[arg-type]


def test_answers_are_computed_in_batches_and_as_a_graph_that_is_traced_once() -> None:
    """A large network keeps what all its layers make of a batch, so batches are small; tracing takes seconds."""
    from converter.source import BATCH_SIZE, SourceModel

    seen: list[int | None] = []

    def call(images: Any) -> Any:
        seen.append(images.shape[0])
        return images[:, 0, 0, :2]

    source = SourceModel(call, 1, 1, 3, 2, None, "fake")
    images = np.random.RandomState(0).uniform(size=(2 * BATCH_SIZE + 1, 1, 1, 3)).astype(np.float32)

    for size in (1, BATCH_SIZE):
        np.testing.assert_array_equal(source.predict(images, batch_size=size), images[:, 0, 0, :2])
    assert seen == [None]
    for _ in range(2):  # of which the second is remembered
        np.testing.assert_array_equal(source.predict(images, is_eager=True), images[:, 0, 0, :2])
    assert seen[1:] == [BATCH_SIZE, BATCH_SIZE, 1]


def test_tensorflow_gets_a_thread_for_each_processor_unless_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has computed something it refuses, and the conversion goes on with the threads there are."""
    import tensorflow as tf

    from converter import source

    given: list[int] = []
    monkeypatch.setattr(source, "count_processors", lambda: 3)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", given.append)
    source.use_all_processors()
    assert given == [3]

    def refuse(threads: int) -> None:
        raise RuntimeError("Intra op parallelism cannot be modified after initialization.")

    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", refuse)
    source.use_all_processors()
