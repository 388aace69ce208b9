"""What can be asked about images: a Keras file or run, an ONNX file or model folder, a running server.

Each is asked as it is used: pixels by the server's decoder, ONNX through the runtime class that serves, a server
through the client. Frameworks are imported where they are needed.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelFileError
from server.images.preprocess import InputFormat
from server.machine.processors import count_processors
from server.models.contract import ModelSpec, sum_positive
from server.models.manifest import MANIFEST_FILE
from training.data.format import INPUT_FORMAT
from training.errors import TrainingError

Item = TypeVar("Item")
Result = TypeVar("Result")
Asked = tuple[Path, NDArray[np.uint8] | None]
"""A file, and its pixels uint8 [H, W, C] where the predictor takes pixels."""

BATCH = 32
"""Images that Keras predicts at once."""

AHEAD = 64
"""Images that are decoded, or in flight to a server, before their answer is needed; bounds the memory."""

ADDRESS = re.compile(r"[^/\\]+:\d{1,5}")


@dataclass(frozen=True)
class Answer:
    """What was answered about one image; ``refusal`` says why there is no score."""

    score: float = np.nan
    """Probability of the positive labels together, in [0, 1]."""

    is_coloured: bool = False
    refusal: str = ""
    probabilities: tuple[float, ...] = ()
    """Of each label, where there are more than two; two are told by the score."""


@dataclass(frozen=True)
class Predictor:
    """Something that answers."""

    name: str
    """Name, version, and what tells it from others of that name."""

    labels: tuple[str, ...]
    positive_labels: tuple[str, ...]
    threshold: float
    study_top_k: int
    """The score of a study is the mean of so many highest ones of its slices; 0: the model has no rule for studies."""

    study_threshold: float
    input_format: InputFormat | None
    """The pixels that it takes; None: it takes files, and decodes them itself."""

    ask: Callable[[Iterable[Asked]], Iterator[Answer]]
    """From files, and their pixels where ``input_format`` is given, to answers in the same order."""

    @property
    def plain_format(self) -> InputFormat:
        """The pixels that what needs no model looks at: of CT values the first window that the predictor sees."""
        return replace(INPUT_FORMAT, windows=self.input_format.windows[:1]) if self.input_format else INPUT_FORMAT


def open_predictor(model: str) -> Predictor:
    """Opens what ``MODEL`` names: a file, a folder, or ``HOST:PORT``.

    Raises:
        TrainingError: it is none of these, or cannot be used.
    """
    path = Path(model)
    if not path.exists() and ADDRESS.fullmatch(model):
        return open_server(model)
    try:
        if (path / MANIFEST_FILE).exists() or path.suffix == ".onnx":
            return open_onnx(path)
        if path.is_dir():
            path = find_keras_file(path)
        if path.suffix in (".keras", ".h5"):
            return open_keras(path)
    except ModelFileError as error:
        raise TrainingError(error.message) from None
    if not path.exists():
        raise TrainingError(f"{model}: there is no such file or folder, and it is no HOST:PORT")
    raise TrainingError(f"{model} is neither a .keras, .h5 or .onnx file, nor a run folder or model folder")


def find_keras_file(folder: Path) -> Path:
    """Returns the model of a run folder."""
    found = sorted(folder.glob("*.keras")) or sorted(folder.glob("*.h5"))
    if not found:
        raise TrainingError(
            f"{folder} is no run folder and no model folder: it has neither a .keras file nor a manifest"
        )
    return found[0]


def open_onnx(path: Path) -> Predictor:
    """Opens an ONNX file, or a model folder, which is verified as a server would."""
    from server.models.engines.engine import EngineOptions
    from server.models.runtime import OnnxModel, load_model

    workers = count_processors()
    options = EngineOptions(workers=workers)
    is_folder = path.is_dir()
    model = load_model(path, options) if is_folder else OnnxModel(path.read_bytes(), source=str(path), options=options)

    def predictor(item: Asked) -> Answer:
        return make_answer(model.run(take_pixels(item)[np.newaxis])[0], model.spec)

    def ask(items: Iterable[Asked]) -> Iterator[Answer]:
        with ThreadPoolExecutor(workers) as pool:
            yield from map_ahead(pool, predictor, items)

    return predictor_of_spec(model.spec, model.digest, model.input_format, ask)


def open_keras(path: Path) -> Predictor:
    """Opens a Keras file that has the ``spec.json`` of its run beside it."""
    from server.process.console import silence_tensorflow

    with silence_tensorflow():
        import keras
    spec_file = path.parent / "spec.json"
    if not spec_file.exists():
        raise TrainingError(f"{path} has no spec.json beside it, so labels and threshold are unknown")
    spec = ModelSpec.from_json(spec_file.read_text("utf-8"))
    try:
        model = keras.models.load_model(path, compile=False)
        _, height, width, channels = model.input_shape
    except Exception as error:  # Keras raises whatever its layers do
        raise TrainingError(f"{path}: Keras cannot load it as a model of images: {error}") from None
    if channels not in (1, 3):
        raise TrainingError(f"{path}: takes images of {channels} channels; 1 or 3 are known")

    def ask(items: Iterable[Asked]) -> Iterator[Answer]:
        for batch in cut_batches(items, BATCH):
            pixels = np.stack([take_pixels(item) for item in batch])
            if pixels.shape[-1] != channels:
                pixels = pixels.repeat(channels, axis=-1)
            answers = model.predict_on_batch(pixels)
            yield from (make_answer(row, spec) for row in answers)

    input_format = InputFormat(height, width, spec.colour, spec.resample, spec.fit, spec.windows)
    return predictor_of_spec(spec, hashlib.sha256(path.read_bytes()).hexdigest(), input_format, ask)


def open_server(target: str) -> Predictor:
    """Connects to a running server; its default model is asked."""
    from client import Prediction, StrokeClient, StrokeClientError

    try:
        with StrokeClient(target) as client:
            info = client.model_info()
    except StrokeClientError as error:
        raise TrainingError(str(error)) from None

    positive = [info.labels.index(label) for label in info.positive_labels]

    def ask(items: Iterable[Asked]) -> Iterator[Answer]:
        try:
            with StrokeClient(target) as client:
                paths = (path for path, _ in items)
                for result in client.predict_many(paths, in_flight=AHEAD, model=info.name, version=info.version):
                    if not isinstance(result, Prediction):
                        yield Answer(refusal=str(result.error))
                        continue
                    if result.digest != info.digest:
                        raise TrainingError(f"the server at {target} changed its model meanwhile; evaluate again")
                    coloured = any(warning.reason == "IMAGE_COLOURED" for warning in result.warnings)
                    row = np.array([result.scores[label] for label in info.labels])
                    each = tuple(row.tolist()) if len(row) > 2 else ()
                    yield Answer(float(sum_positive(row, positive)), coloured, probabilities=each)
        except StrokeClientError as error:
            raise TrainingError(str(error)) from None

    name = f"{info.name} {info.version} (sha256 {info.digest[:12]}, {info.precision}) at {target}"
    return Predictor(
        name,
        info.labels,
        info.positive_labels,
        info.threshold,
        info.study_top_k,
        info.study_threshold,
        None,
        ask,
    )


def predictor_of_spec(
    spec: ModelSpec,
    digest: str,
    input_format: InputFormat,
    ask: Callable[[Iterable[Asked]], Iterator[Answer]],
) -> Predictor:
    name = f"{spec.name} {spec.version} (sha256 {digest[:12]})"
    return Predictor(
        name,
        spec.labels,
        spec.positive_labels,
        spec.threshold,
        spec.study_top_k,
        spec.study_threshold,
        input_format,
        ask,
    )


def make_answer(probabilities: NDArray[np.floating], spec: ModelSpec) -> Answer:
    """Returns the answer of the model's ``probabilities`` of one image, [C], or a refusal where one is no probability:
    the server would answer that with an error.

    A network with one output answers the probability of the positive label, as the converter reads it.
    """
    if not np.isfinite(probabilities).all():
        return Answer(refusal="The model's answer is not a number.")
    if len(probabilities) == 1:
        return Answer(float(probabilities[0]))
    each = tuple(probabilities.tolist()) if len(probabilities) > 2 else ()
    return Answer(spec.positive_score(probabilities), probabilities=each)


def take_pixels(item: Asked) -> NDArray[np.uint8]:
    """Returns the pixels of an item for a predictor that takes pixels."""
    path, pixels = item
    if pixels is None:
        raise ValueError(f"{path} comes without pixels")
    return pixels


def map_ahead(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields ``function(item)`` in order, at most ``AHEAD`` of them begun and not taken; ``items`` may be slow."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def cut_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields lists of ``size`` items, the last one shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
