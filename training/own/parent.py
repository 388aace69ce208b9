"""The earlier model that is tuned: a Keras network that answers what its file answers, and what is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelFileError
from server.images.preprocess import InputFormat
from server.models.contract import ModelSpec
from server.models.engines.engine import EngineOptions
from server.models.manifest import MANIFEST_FILE, MODEL_FILE, read_manifest, read_verified
from server.models.runtime import OnnxModel, load_model
from training.data.format import IMAGE_SIZE
from training.data.split import SPLIT_FILE
from training.errors import TrainingError
from training.judge.predictors import ADDRESS, find_keras_file
from training.own.rebuild import rebuild_cnn, require_same

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Parent:
    """An earlier model."""

    spec: ModelSpec
    digest: str
    """SHA-256 of its file."""

    network: keras.Model
    """From pixels [N, 256, 256, 3] to probabilities; calibrated as the file is."""

    split: Path | None = None
    """``split.csv`` of its run, where that is known: which images it has seen."""

    check: Callable[[NDArray[np.uint8]], None] = lambda pixels: None
    """Compares file and network once more, on images uint8 [N, 256, 256, C]; raises TrainingError where they differ."""

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.spec.name} {self.spec.version}"

    @property
    def input_format(self) -> InputFormat:
        """The pixels that it takes; without a window it takes no CT values."""
        spec = self.spec
        return InputFormat(IMAGE_SIZE, IMAGE_SIZE, spec.colour, spec.resample, spec.fit, spec.windows)


def open_parent(model: str) -> Parent:
    """Opens an earlier model.

    Raises:
        TrainingError: it cannot be used, or cannot be tuned; the message says what can.
    """
    path = Path(model)
    if not path.exists():
        more = "; of a server, name the folder of the model that it serves" if ADDRESS.fullmatch(model) else ""
        raise TrainingError(f"{model}: there is no such file or folder{more}")
    try:
        if path.suffix == ".onnx" or (path / MANIFEST_FILE).exists():
            return open_onnx(path)
        if path.is_dir():
            path = find_keras_file(path)
        if path.suffix not in (".keras", ".h5"):
            raise TrainingError(f"{path} is neither a .keras, .h5 or .onnx file, nor a run folder or model folder")
        return open_keras(path)
    except ModelFileError as error:
        raise TrainingError(error.message) from None


def open_onnx(path: Path) -> Parent:
    """Makes a network of an ONNX file, or of the fp32 file of a model folder, which is verified as by a server."""
    if path.is_dir():
        model = load_model(path, EngineOptions(precision="fp32"))
        data = read_verified(path, MODEL_FILE, read_manifest(path))
    else:
        data = path.read_bytes()
        model = OnnxModel(data, source=str(path))
    network = rebuild_cnn(data, model, str(path))
    return Parent(
        model.spec, model.digest, network, check=lambda pixels: require_same(network, model, pixels, str(path))
    )


def open_keras(path: Path) -> Parent:
    """Opens a Keras file that has the ``spec.json`` of its run beside it."""
    import keras

    spec_file = path.parent / "spec.json"
    if not spec_file.exists():
        raise TrainingError(f"{path} has no spec.json beside it, so labels and threshold are unknown")
    spec = ModelSpec.from_json(spec_file.read_text("utf-8"))
    try:
        network = keras.models.load_model(path, compile=False)
        shape, last = network.input_shape, network.layers[-1]
    except Exception as error:  # Keras raises whatever its layers do
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{path}: Keras cannot load it as a model of images ({reason})") from None
    if tuple(shape) != (None, IMAGE_SIZE, IMAGE_SIZE, 3):
        raise TrainingError(f"{path}: takes {shape}; tune-up knows networks that take {IMAGE_SIZE} x {IMAGE_SIZE} x 3")
    is_softmax = getattr(getattr(last, "activation", None), "__name__", "") == "softmax" and hasattr(last, "kernel")
    if not is_softmax or network.output_shape[-1] != len(spec.labels):
        raise TrainingError(f"{path}: does not end in a dense softmax layer of {len(spec.labels)}, one for each label")
    split = path.with_name(SPLIT_FILE)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Parent(spec, digest, network, split if split.is_file() else None)
