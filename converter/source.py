"""Loading the model to convert: ``.keras``, ``.h5`` (written by Keras 2 or 3), or a SavedModel folder."""

from __future__ import annotations

import gc
import hashlib
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import h5py
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from converter.custom import explain_unknown, load_custom
from converter.errors import SourceError, describe
from converter.graph.precision import call_in_float32, widen_signature
from converter.heads import expect_probabilities
from converter.keras_file import KerasFile, check_folder, find_inline_code, read_keras_file
from converter.pixels.preprocess import BYTES_AS_THEY_ARE, Preprocess
from converter.pixels.scaling import read_input_range
from server.machine.memory import trim_memory
from server.machine.processors import count_processors
from training.fit.models import MODELS

BATCH_SIZE = 4
"""Images that are computed at a time: of more, a large network is no faster and takes more memory."""

EAGER_BATCH_SIZE = 2
"""The same operator by operator, which keeps what every layer makes (190 MB an image of ResNet-50), and TensorFlow
never gives that back. The answers are those of ``BATCH_SIZE``, to the bit."""


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
    """Pixel values that it takes, where what it does to them shows it, see ``converter.pixels.scaling``."""

    kind: str
    """What it was read as, for the report."""

    activation: str | None = None
    """What its answers lack to be probabilities, a key of ``converter.heads.ACTIVATIONS``; None: nothing."""

    preprocess: Preprocess = BYTES_AS_THEY_ARE
    """What bytes have to become before they reach it."""

    @property
    def classes(self) -> int:
        """How many probabilities it has: a single output stands for two."""
        return max(self.outputs, 2)

    @property
    def traced(self) -> Callable[[Any], Any]:
        """``call`` as a graph."""
        return trace(self.call, self.height, self.width, self.channels)

    @cached_property
    def answered(self) -> dict[Hashable, NDArray[np.float32]]:
        """What ``predict`` has answered: several steps ask for the same images, which costs a large network seconds."""
        return {}

    def predict(
        self, images: NDArray[Any], *, batch_size: int = BATCH_SIZE, is_eager: bool = False
    ) -> NDArray[np.float32]:
        """Probabilities [N, classes] for uint8 or float32 [N, height, width, channels], 0 to 255, in RGB.

        A model of three channels sees grey images as R = G = B. What pixels and answers lack is done here.

        Args:
            images: as they are decoded; N >= 1.
            batch_size: images computed at a time.
            is_eager: operator by operator, and averages over an image row by row, which takes twice the time, and
                memory for all layers at once; otherwise as a graph, as ``Model.predict`` does.

        Raises:
            SourceError: a layer of it fails.
        """
        key = (hashlib.sha256(images.tobytes()).digest(), images.shape, images.dtype.str, batch_size, is_eager)
        if key not in self.answered:
            with average_by_rows() if is_eager else nullcontext():
                self.answered[key] = self._compute(images, batch_size, self.call if is_eager else self.traced)
        return self.answered[key]

    def _compute(self, images: NDArray[Any], batch_size: int, call: Callable[[Any], Any]) -> NDArray[np.float32]:
        """See ``predict``."""
        try:
            answers = [
                np.asarray(call(tf.constant(self._prepare(batch), tf.float32)), dtype=np.float32)
                for batch in split_batches(images, batch_size)
            ]
        except Exception as error:  # layers raise whatever they do
            raise SourceError(f"the {self.kind} model itself fails on images: {describe(error)}") from None
        return expect_probabilities(np.concatenate(answers), self.activation)

    def _prepare(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """What the model was trained on, with as many channels as it takes."""
        pixels = self.preprocess.apply(images)
        return np.repeat(pixels, self.channels // pixels.shape[3], axis=3)


@lru_cache(maxsize=1)
def trace(call: Callable[[Any], Any], height: int, width: int, channels: int) -> Callable[[Any], Any]:
    """A model as a graph, traced once whatever is done to its pixels before."""
    signature = tf.TensorSpec((None, height, width, channels), tf.float32)
    return cast("Callable[[Any], Any]", tf.function(call, input_signature=[signature]))


def forget_sources() -> None:
    """Gives back the memory of models that nobody holds any more; Keras's and TensorFlow's objects have circles."""
    trace.cache_clear()
    gc.collect()
    trim_memory()


def use_all_processors() -> None:
    """Gives TensorFlow a thread for each processor: left alone it leaves out half of them, where two are of one core.

    Once it has computed anything, it stays as it is.
    """
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(count_processors())


@contextmanager
def average_by_rows() -> Iterator[None]:
    """Has averages over an image that are computed meanwhile, operator by operator, taken row by row.

    It is the same to whoever trained the model, and less is rounded: the sum of thousands of equal values, as of a
    white image, is off by the same little bit at each (measured: an average by 1.3e-5, a probability by 1e-4).
    """
    average = tf.reduce_mean

    def reduce_mean(values: Any, axis: Any = None, keepdims: bool = False, **rest: Any) -> Any:
        if isinstance(axis, list | tuple) and sorted(axis) == [1, 2]:
            values = average(values, axis=2, keepdims=True)
        return average(values, axis=axis, keepdims=keepdims, **rest)

    tf.reduce_mean = reduce_mean
    try:
        yield
    finally:
        tf.reduce_mean = average


def split_batches(images: NDArray[Any], size: int = BATCH_SIZE) -> list[NDArray[Any]]:
    """Views of ``size`` images each, fewer in the last."""
    return [images[first : first + size] for first in range(0, len(images), size)]


def load_source(
    path: Path, *, architecture: str | None = None, custom: Path | None = None, size: int | None = None
) -> SourceModel:
    """Loads a trained model.

    Args:
        path: ``.keras`` or ``.h5`` file, or folder of a SavedModel.
        architecture: the network that a file of weights alone is for, a key of ``training.fit.models.MODELS``.
        custom: Python file with layers and functions of the model's own; it is run.
        size: height and width of images for a model that takes any.

    Raises:
        SourceError: there is no such file, it is not a model, or not one with one image in and one answer out.
    """
    if not path.exists():
        raise SourceError(f"{path}: there is no such file or folder")
    if path.is_dir():
        check_folder(path)
        if architecture is not None or custom is not None:
            raise SourceError(f"{path}: a SavedModel has all of its network; leave --architecture and --custom out")
        return load_saved_model(path, size)
    file = read_keras_file(path)
    if file.config is None:
        return wrap_keras(load_weights(file, architecture), file, size)
    if architecture is not None:
        raise SourceError(f"{path}: has its own network, not weights alone; leave --architecture out")
    return wrap_keras(load_network(file, custom), file, size)


def load_network(file: KerasFile, custom: Path | None) -> Any:
    """Loads a whole model with the Keras that wrote it.

    Raises:
        SourceError: that Keras cannot, or is not here.
    """
    if (layer := find_inline_code(file.config)) is not None:
        raise SourceError(
            f"{file.path}: its Lambda layer {layer} keeps Python code in the file, which is not run. Convert a "
            "SavedModel instead, made where the model was trained: model.export('folder')"
        )
    objects = load_custom(custom, file) if custom is not None else {}
    try:
        if file.is_keras2:
            import tf_keras

            return tf_keras.models.load_model(file.path, objects, compile=False)
        return keras.models.load_model(file.path, objects, compile=False)
    except ModuleNotFoundError as error:
        if error.name != "tf_keras":
            raise SourceError(f"{file.path}: Keras cannot load it: {describe(error)}") from None
        raise SourceError(
            f"{file.path}: written by Keras {file.keras_version}; tf-keras reads it: install that"
        ) from None
    except Exception as error:  # Keras raises whatever its layers do
        reason = explain_unknown(file, error, objects) or f"Keras cannot load it: {describe(error)}"
        raise SourceError(f"{file.path}: {reason}") from None


def load_weights(file: KerasFile, architecture: str | None) -> Any:
    """Loads weights alone into a network of the training package.

    Raises:
        SourceError: it is not said which, or they are another network's.
    """
    if architecture is None:
        raise SourceError(
            f"{file.path}: has weights alone, without the network ({file.parameters:,} numbers): say --architecture "
            f"{' or '.join(MODELS)} where it is one of these, or save the whole model where it was trained: "
            "model.save('model.keras')"
        )
    network = MODELS[architecture]("float32")
    if file.parameters != network.count_params():
        raise SourceError(
            f"{file.path}: has weights of another network: {file.parameters:,} numbers, {architecture} has "
            f"{network.count_params():,}"
        )
    with h5py.File(file.path) as content:
        # Keras goes by the name: one format lists its layers in front, the other has folders as in an archive.
        name = "by_order.h5" if "layer_names" in content.attrs else "by_name.weights.h5"
    try:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / name
            link.symlink_to(file.path.absolute())
            network.load_weights(link)
    except Exception as error:  # as above
        raise SourceError(f"{file.path}: does not fit {architecture}: {describe(error)}") from None
    return network


def wrap_keras(model: Any, file: KerasFile, size: int | None = None) -> SourceModel:
    """A loaded network as a function of pixels.

    Raises:
        SourceError: it does not have one image in and one answer out, or weights that are no numbers.
    """
    path = file.path
    inputs, answers = (list(getattr(model, name, None) or ()) for name in ("inputs", "outputs"))
    if not inputs:
        raise SourceError(f"{path}: the size of its images is not known: call the model on one, then save it again")
    check_one_of_each(path, [tensor.name for tensor in inputs], [tensor.name for tensor in answers])
    check_finite(path, model.weights)
    height, width, channels, outputs = check_shapes(path, tuple(model.input_shape), tuple(model.output_shape), size)

    def call(images: Any) -> Any:
        return model(images, training=False)

    return SourceModel(
        call=call_in_float32(model),
        height=height,
        width=width,
        channels=channels,
        outputs=outputs,
        input_range=read_input_range(call, height, width, channels),
        kind=file.kind,
    )


def load_saved_model(path: Path, size: int | None = None) -> SourceModel:
    """Loads the default signature of a SavedModel."""
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:
        if not list(path.glob("variables/variables.index")) or not list(path.glob("variables/variables.data-*")):
            reason = "has a network, but not its weights (variables/variables.index and .data-…)"
        elif isinstance(error, OSError | IndexError | tf.errors.OpError) and "not registered" not in str(error):
            reason = f"is damaged or cut short ({describe(error)})"
        else:  # operations that are not TensorFlow's own, for one
            raise SourceError(f"{path}: TensorFlow cannot load it: {describe(error)}") from None
        raise SourceError(f"{path}: {reason}; copy or download the whole folder again") from None
    if "serving_default" not in loaded.signatures:
        raise SourceError(f"{path}: has no signature serving_default; save it with model.export('folder')")
    signature = loaded.signatures["serving_default"]
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if any(spec.shape.rank is None for spec in (*inputs.values(), *outputs.values())):
        raise SourceError(f"{path}: nothing is known of its shapes; export it with an input of three known axes")
    check_one_of_each(path, list(inputs), list(outputs))
    check_finite(path, signature.variables)
    ((input_name, input_spec),) = inputs.items()
    ((output_name, output_spec),) = outputs.items()
    height, width, channels, classes = check_shapes(path, tuple(input_spec.shape), tuple(output_spec.shape), size)

    wide = widen_signature(signature)

    def call(images: Any) -> Any:
        if wide is not None:
            return wide(tf.cast(images, tf.float32))[0]
        # `loaded` is named here to keep it alive: the signature holds its variables only weakly.
        return loaded.signatures["serving_default"](**{input_name: tf.cast(images, input_spec.dtype)})[output_name]

    takes_integers = input_spec.dtype.is_integer
    input_range = "0..255" if takes_integers else read_input_range(call, height, width, channels)
    return SourceModel(call, height, width, channels, classes, input_range, kind="SavedModel")


def check_one_of_each(path: Path, inputs: list[str], outputs: list[str]) -> None:
    """Refuses a model with anything but one input and one output."""
    if len(inputs) != 1 or len(outputs) != 1:
        counts = f"{len(inputs)} inputs ({', '.join(inputs)}) and {len(outputs)} outputs ({', '.join(outputs)})"
        remedy = "" if len(inputs) > 1 else "; choose one: keras.Model(model.input, model.outputs[0])"
        raise SourceError(f"{path}: has {counts}; one of each is needed: an image in, its scores out{remedy}")


def check_finite(path: Path, variables: Iterable[Any]) -> None:
    """Refuses weights that are no numbers: no comparison of answers would mean anything."""
    for variable in variables:
        value = variable.numpy()
        if np.issubdtype(value.dtype, np.inexact) and not np.isfinite(value).all():
            name = getattr(variable, "path", variable.name)
            raise SourceError(
                f"{path}: its weights {name} are not numbers: the file is damaged, or training came to NaN or infinity"
            )


def check_shapes(
    path: Path, taken: tuple[Any, ...], given: tuple[Any, ...], size: int | None
) -> tuple[int, int, int, int]:
    """Returns height, width, channels and outputs of a model that takes images and gives one row an image."""
    if len(taken) != 4 or taken[3] not in (1, 3):
        raise SourceError(f"{path}: its input is {taken}; (None, height, width, 1 or 3) is needed")
    if None in taken[1:3]:
        if size is None:
            raise SourceError(
                f"{path}: takes images of any size ({taken}): say --size with the pixels a side that it was trained "
                "on, such as --size 224"
            )
        taken = (taken[0], *(side or size for side in taken[1:3]), taken[3])
    elif size is not None and taken[1:3] != (size, size):
        raise SourceError(f"{path}: takes images of {taken[1]} x {taken[2]} pixels alone; leave --size out")
    if len(given) != 2 or not isinstance(given[1], int):
        raise SourceError(f"{path}: its output is {given}; (None, classes) is needed")
    return taken[1], taken[2], taken[3], given[1]
