"""What a conversion holds in memory, and when it lets go of it."""

from __future__ import annotations

import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.config import ConvertOptions
from tests.converting import convert
from tests.fakes import ROOT

pytestmark = pytest.mark.tensorflow

MOST_COPIES = 3
"""Of all weights, held when the last files are made, beside what the libraries take: measured 1.8, and 4.9 before
everything was let go of as soon as it can be."""

WIDE = """
import sys
from pathlib import Path
import keras
from keras import layers
import converter.convert
from converter.config import ConvertOptions
from server.machine.memory import read_resident_bytes

keras.utils.set_random_seed(1)
network = keras.Sequential([
    keras.Input((32, 32, 3)),
    layers.Rescaling(1 / 255),
    layers.Conv2D(64, 8, strides=8, activation="relu"),
    layers.Conv2D(1024, 3, padding="same", activation="relu"),
    layers.Conv2D(2048, 3, padding="same", activation="relu"),
    layers.GlobalAveragePooling2D(),
    layers.Dense(2, activation="softmax"),
])
folder, images = map(Path, sys.argv[1:])
network.save(folder / "wide.keras")
weights = 4 * network.count_params()
network = None
before, held = read_resident_bytes(), []
renew = converter.convert.renew_explain_file

def renew_explain_file(*given):
    held.append(read_resident_bytes())
    return renew(*given)

converter.convert.renew_explain_file = renew_explain_file
options = ConvertOptions(
    folder / "wide.keras", folder / "wide" / "1", ("normal", "stroke"), ("stroke",), 0.5, images=images
)
converter.convert.convert(options)
print((held[0] - before) / weights)
"""


def test_conversion_holds_few_copies_of_the_weights(tmp_path: Path, converter_images: Path) -> None:
    """Of a network of 78 MB, whose activations are small beside that; in a process that has done nothing else."""
    run = subprocess.run(
        [sys.executable, "-c", WIDE, tmp_path, converter_images],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert float(run.stdout.splitlines()[-1]) < MOST_COPIES


def test_trained_model_and_loaded_ones_are_gone_before_the_explain_file_is_made(
    keras_file: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them has all weights of a large network, and so have the graphs and sessions that come then."""
    import converter.convert as steps

    held: dict[str, weakref.ref[Any]] = {}
    load, check, renew = steps.load_source, steps.check_parity, steps.renew_explain_file

    def load_source(*given: Any, **named: Any) -> Any:
        source = load(*given, **named)
        held["trained model"] = weakref.ref(source.call)
        return source

    def check_parity(*given: Any) -> Any:
        model, parity = check(*given)
        held["exported model"] = weakref.ref(model)
        return model, parity

    alive: list[str] = []

    def renew_explain_file(*given: Any) -> Any:
        alive.extend(what for what, reference in held.items() if reference() is not None)
        return renew(*given)

    monkeypatch.setattr(steps, "load_source", load_source)
    monkeypatch.setattr(steps, "check_parity", check_parity)
    monkeypatch.setattr(steps, "renew_explain_file", renew_explain_file)
    convert(replace(converter_options, model=keras_file))

    assert list(held) == ["trained model", "exported model"]
    assert alive == []


def test_served_model_is_opened_three_times(
    keras_file: Path, converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its proof, as the explain file, and as it is installed: each of them takes a large network time, too."""
    from server.models.engines.onnxruntime_engine import OnnxRuntimeEngine

    opened: list[int] = []
    start = OnnxRuntimeEngine.__init__

    def open_counted(engine: OnnxRuntimeEngine, data: bytes, *given: Any) -> None:
        opened.append(len(data))
        start(engine, data, *given)

    monkeypatch.setattr(OnnxRuntimeEngine, "__init__", open_counted)
    convert(replace(converter_options, model=keras_file))

    assert len(opened) == 3


def test_source_answers_operator_by_operator_in_pairs() -> None:
    """There it keeps what every layer makes, and TensorFlow never gives that back."""
    import tensorflow as tf

    from converter.source import SourceModel
    from converter.verify import measure_variation

    eager: list[int] = []

    def answer(pixels: Any) -> Any:
        if tf.executing_eagerly():
            eager.append(int(pixels.shape[0]))
        return tf.fill((tf.shape(pixels)[0], 1), 0.5)

    images = np.full((5, 1, 1, 3), 100, np.uint8)
    source = SourceModel(answer, 1, 1, 3, 1, "0..255", "fake")
    measure_variation(source, images, source.predict(images))

    assert eager == [2, 2, 1]
