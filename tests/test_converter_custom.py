"""Code that a model's file does not hold comes from --custom; code that it holds is not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from converter.errors import SourceError
from tests.converting import SIDE, convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # both call HDF5 a legacy format
]

CODE = """
import {module} as keras

class Twice(keras.layers.Layer):
    def call(self, images):
        return 2.0 * images

def halve(images):
    return 0.5 * images
"""

FORMS = [(module, name) for module in ("keras", "tf_keras") for name in ("model.keras", "model.h5")]


def write_code(folder: Path, module: str) -> Path:
    (folder / "own.py").write_text(CODE.format(module=module))
    return folder / "own.py"


def save_with(k: Any, layer: Any, path: Path) -> Path:
    """A small network with one layer of somebody's; always the same, for some of this form are at the bound."""
    k.utils.set_random_seed(1)
    images = k.layers.Input((SIDE, SIDE, 3))
    maps = k.layers.Conv2D(4, 3, activation="relu")(layer(k.layers.Rescaling(1 / 255)(images)))
    k.Model(images, k.layers.Dense(2, activation="softmax")(k.layers.GlobalAveragePooling2D()(maps))).save(path)
    return path


@pytest.mark.parametrize(("module", "name"), FORMS)
def test_own_layer_converts_with_its_code(
    module: str, name: str, tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """Without it the message says how to give it; code for the other Keras is told as such."""
    k = __import__(module)
    space: dict[str, Any] = {"__name__": "somewhere"}
    exec(CODE.format(module=module), space)
    path = save_with(k, space["Twice"](), tmp_path / name)
    options = replace(converter_options, model=path)
    with pytest.raises(SourceError, match=r"of its own, Twice, .* --custom FILE\.py, or convert a SavedModel"):
        convert(options)
    other = "keras" if module == "tf_keras" else "tf_keras"
    with pytest.raises(SourceError, match=rf"Twice is made of {other}, .* needs {module}:"):
        convert(replace(options, custom=write_code(tmp_path, other)))

    assert convert(replace(options, custom=write_code(tmp_path, module))).parity.images == 12


@pytest.mark.parametrize("layer", ["Lambda", "Activation"])
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_own_function_converts_with_its_code(
    layer: str, name: str, tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """Keras 3 keeps the names of functions alone."""
    import keras

    space: dict[str, Any] = {"__name__": "somewhere"}
    exec(CODE.format(module="keras"), space)
    path = save_with(keras, getattr(keras.layers, layer)(space["halve"]), tmp_path / name)
    options = replace(converter_options, model=path)
    with pytest.raises(SourceError, match=r"of its own, halve, .* --custom FILE\.py"):
        convert(options)
    (tmp_path / "empty.py").write_text("def other(images):\n    return images\n")
    with pytest.raises(SourceError, match=r"halve, which --custom does not define"):
        convert(replace(options, custom=tmp_path / "empty.py"))

    assert convert(replace(options, custom=write_code(tmp_path, "keras"))).parity.images == 12


@pytest.mark.parametrize(("module", "name"), FORMS)
def test_code_in_the_file_is_not_run(module: str, name: str, tmp_path: Path, converter_options: ConvertOptions) -> None:
    """Keras 2 would run a Lambda layer's when it loads .h5; the message names a way out."""
    k = __import__(module)
    layer = k.layers.Lambda(lambda images: 0.5 * images, output_shape=(SIDE, SIDE, 3), name="by_hand")
    path = save_with(k, layer, tmp_path / name)

    with pytest.raises(SourceError, match=r"Lambda layer by_hand keeps Python code in the file.* model\.export"):
        convert(replace(converter_options, model=path))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit", "ends the program"),
    ],
)
def test_code_that_fails_is_named(code: str, reason: str, keras_file: Path, converter_options: ConvertOptions) -> None:
    """It is somebody's: one line with what Python said."""
    path = converter_options.model.parent / "own.py"
    path.write_text(code)

    with pytest.raises(SourceError, match=rf"--custom .*own\.py: .*{reason}"):
        convert(replace(converter_options, model=keras_file, custom=path))


def test_operation_that_h5_does_not_give_back_is_named(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """Keras 3 writes it and cannot read it; the other format holds it."""
    import keras

    path = save_with(keras, lambda images: images[..., ::-1], tmp_path / "model.h5")

    with pytest.raises(SourceError, match=r"has GetItem in it, .* save the model as \.keras"):
        convert(replace(converter_options, model=path))
