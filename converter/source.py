"""Loading the model to convert: ``.keras``, ``.h5`` (written by Keras 2 or 3), or a SavedModel folder."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from converter.errors import SourceError, describe
from converter.scaling import read_input_range

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class SourceModel:
    """A trained model as a function of pixels."""

    call: Callable[[Any], Any]
    """float32 tensor [N, height, width, channels] in the range that the model was trained on → float32 [N, outputs]."""

    height: int
    width: int
    channels: int
    """1 or 3."""

    outputs: int
    """Width of the last axis of the answer: 1 for a single sigmoid, otherwise the number of classes."""

    input_range: str | None
    """``0..255`` or ``0..1`` where what the model does to its pixels shows what it takes (``converter.scaling``)."""

    kind: str
    """What it was read as, for the report."""

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answers for float32 [N, height, width, channels]; a model of three channels sees grey images as R = G = B."""
        images = np.repeat(images, self.channels // images.shape[3], axis=3)
        return np.asarray(self.call(tf.constant(images, tf.float32)), dtype=np.float32)


def load_source(path: Path) -> SourceModel:
    """Loads a trained model.

    Raises:
        SourceError: there is no such file, it is not a model, or not one with one image in and one answer out.
    """
    if not path.exists():
        raise SourceError(f"{path}: there is no such file or folder")
    if path.is_dir():
        if not (path / "saved_model.pb").exists():
            raise SourceError(f"{path}: not a SavedModel: there is no saved_model.pb in it")
        return load_saved_model(path)
    with path.open("rb") as file:
        is_hdf5 = file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
    if not is_hdf5 and not zipfile.is_zipfile(path):
        raise SourceError(f"{path}: neither a .keras nor an .h5 file; is it complete?")
    if is_hdf5 and path.suffix not in (".h5", ".hdf5"):
        raise SourceError(f"{path}: holds HDF5; Keras reads that only from a file named .h5, rename it")
    if not is_hdf5 and path.suffix != ".keras":
        raise SourceError(f"{path}: holds a .keras archive; Keras reads that only from a file named so, rename it")
    try:
        model = keras.models.load_model(path, compile=False)
        inputs, answers = list(model.inputs), list(model.outputs)
    except Exception as error:  # Keras raises whatever its layers do; a model that was never built has no inputs
        raise SourceError(f"{path}: Keras cannot load it: {describe(error)}") from None
    if len(inputs) != 1 or len(answers) != 1:
        raise SourceError(f"{path}: has {len(inputs)} inputs and {len(answers)} outputs; one of each is needed")
    height, width, channels, outputs = check_shapes(path, tuple(model.input_shape), tuple(model.output_shape))

    def call(images: Any) -> Any:
        return model(images, training=False)

    return SourceModel(
        call=call,
        height=height,
        width=width,
        channels=channels,
        outputs=outputs,
        input_range=read_input_range(call, height, width, channels),
        kind=f"Keras {'.h5' if is_hdf5 else '.keras'}",
    )


def load_saved_model(path: Path) -> SourceModel:
    """Loads the default signature of a SavedModel."""
    try:
        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures["serving_default"]
    except Exception as error:
        raise SourceError(f"{path}: TensorFlow cannot load its signature serving_default: {describe(error)}") from None
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if any(spec.shape.rank is None for spec in (*inputs.values(), *outputs.values())):
        raise SourceError(f"{path}: its shapes are not fixed; export it with an input of known size")
    if len(inputs) != 1 or len(outputs) != 1:
        raise SourceError(f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs; one of each is needed")
    ((input_name, input_spec),) = inputs.items()
    ((output_name, output_spec),) = outputs.items()
    height, width, channels, classes = check_shapes(path, tuple(input_spec.shape), tuple(output_spec.shape))

    def call(images: Any) -> Any:
        # `loaded` is named here to keep it alive: the signature holds its variables only weakly.
        return loaded.signatures["serving_default"](**{input_name: tf.cast(images, input_spec.dtype)})[output_name]

    takes_integers = input_spec.dtype.is_integer
    input_range = "0..255" if takes_integers else read_input_range(call, height, width, channels)
    return SourceModel(call, height, width, channels, classes, input_range, kind="SavedModel")


def check_shapes(path: Path, taken: tuple[Any, ...], given: tuple[Any, ...]) -> tuple[int, int, int, int]:
    """Returns height, width, channels and outputs of a model that takes images and gives one row an image."""
    if len(taken) != 4 or not all(isinstance(side, int) for side in taken[1:]) or taken[3] not in (1, 3):
        raise SourceError(f"{path}: its input is {taken}; (None, height, width, 1 or 3) with fixed sides is needed")
    if len(given) != 2 or not isinstance(given[1], int):
        raise SourceError(f"{path}: its output is {given}; (None, classes) is needed")
    return taken[1], taken[2], taken[3], given[1]
