"""Proof that the converted model is the trained one: through the very class that serves, on real and random images.

In this order, each with its own error: names and types, shapes, values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.errors import (
    ConversionError,
    OutputNamesError,
    OutputShapeError,
    OutputValuesError,
)
from converter.pixels.sampling import spread_evenly
from converter.source import EAGER_BATCH_SIZE, SourceModel, split_batches
from server.errors import ImageError, ModelFileError
from server.images.dicom.signature import SIGNATURE_BYTES, is_dicom
from server.images.image_folder import list_folder
from server.images.preprocess import InputFormat, load_pixels
from server.images.slice_table import TABLE_NAME
from server.machine.processors import count_processors
from server.models.runtime import OnnxModel
from training.phantom.dataset import FACTS_FILE

LEAST_TOLERANCE = 1e-5
"""Absolute difference of a probability between source and ONNX Runtime in fp32 that every model may have."""

MOST_TOLERANCE = 1e-4
"""What no model may have, however much the source itself varies: a real fault (a second division, swapped channels,
one altered weight) was measured at 1e-2 and more, where a model's answers are not all the same."""

VARIATION_FACTOR = 16
"""Times the source's own variation that is allowed. That is measured with one rounding, at the pixels; a converted
model, with scaling and normalisation folded into its weights, brings one like it in each of its layers. Measured on
trained statistics and confident heads: up to 8 times on images of few colours, where roundings do not average out."""

VARIATION_IMAGES = 4
"""Image files on which the source's own variation is measured, beside the random ones: those on which it is least
certain, for there its rounding shows most."""

MAX_IMAGES = 32
RANDOM_IMAGES = 8
BATCHED_IMAGES = 8
"""Those that are computed in batches besides: a graph that is wrong there is wrong on any image."""

PATCHES = 2
"""Patches a side."""

SATURATED = 1e-3
"""An answer nearer than this to 0 and 1 is saturated: with quite other weights it would hardly be another one."""


@dataclass(frozen=True)
class Parity:
    """What was compared and how close it was."""

    images: int
    """Decoded image files."""

    random_images: int
    image_difference: float
    """Largest absolute difference of a probability on image files."""

    random_difference: float
    """The same on random pixels."""

    source_variation: float
    """How far the source's own answers lie apart when it computes the same in another way."""

    allowed: float
    """Bound of the differences that follows from it."""

    telling: int
    """Images, random ones included, whose answers are not saturated: the others prove little."""


def load_images(
    folder: Path, input_format: InputFormat, tell: Callable[[str], None] = lambda note: None
) -> NDArray[np.uint8]:
    """Decodes up to ``MAX_IMAGES`` images of a folder and what lies below, spread evenly over their names.

    Args:
        folder: where to look, see ``list_folder``.
        input_format: what the model takes.
        tell: called with what was left out, if anything was.

    Returns:
        uint8 [N, height, width, channels], N >= 1.

    Raises:
        ConversionError: there is no readable image.
    """
    try:
        found = list_folder(folder, own=(TABLE_NAME, FACTS_FILE))
    except OSError as error:
        raise ConversionError(f"--images {folder}: {error.strerror}") from None
    files, left_out = found.images, found.describe_left_out()
    if not files:
        also = f" ({left_out})" if left_out else ""
        raise ConversionError(
            f"{folder}: no PNG, JPEG or DICOM file in it{also}; parity is proven on real images: --images DIR"
        )
    if left_out:
        tell(f"{left_out} of {folder}")
    if not input_format.windows and (unseen := {path for path in files if begins_as_dicom(path)}):
        files = tuple(path for path in files if path not in unseen)
        if not files:
            raise ConversionError(
                f"{folder}: all DICOM files, which the model sees in no window: --window 40,80 gives one"
            )
        tell(f"left out: {len(unseen):,} DICOM files of {folder}, which the model sees in no window (--window)")
    chosen = [files[i] for i in spread_evenly(len(files), MAX_IMAGES)]
    images = []
    for path in chosen:
        try:
            images.append(load_pixels(path.read_bytes(), input_format).array)
        except ImageError as error:
            raise ConversionError(f"{path}: {error.message} [{error.reason}]") from None
    return np.stack(images)


def begins_as_dicom(path: Path) -> bool:
    """Whether a file is DICOM."""
    with path.open("rb") as file:
        return is_dicom(file.read(SIGNATURE_BYTES))


def make_random_images(input_format: InputFormat) -> NDArray[np.uint8]:
    """Black, white, seeded noise, and coloured patches: uint8 [RANDOM_IMAGES, height, width, channels].

    Noise has the same mean in every channel, so a model that averages over the image cannot tell its channels apart;
    patches differ in it.
    """
    height, width, channels = input_format.height, input_format.width, input_format.channels
    random = np.random.RandomState(0)
    noise = random.randint(0, 256, ((RANDOM_IMAGES - 2) // 2, height, width, channels)).astype(np.uint8)
    patches = random.randint(0, 256, (RANDOM_IMAGES - 2 - len(noise), PATCHES, PATCHES, channels)).astype(np.uint8)
    rows, columns = (np.arange(side) * PATCHES // side for side in (height, width))
    plain = np.zeros((2, height, width, channels), np.uint8)
    plain[1] = 255
    return np.concatenate([plain, noise, patches[:, rows[:, np.newaxis], columns]])


def check_parity(data: bytes, source: SourceModel, images: NDArray[np.uint8]) -> tuple[OnnxModel, Parity]:
    """Compares the ONNX bytes, run by the class that serves, with the trained model.

    Args:
        data: the ONNX file.
        source: the trained model.
        images: real images, uint8 [N, height, width, channels].

    Returns:
        The loaded model, and what was measured.

    Raises:
        OutputNamesError, OutputShapeError, OutputValuesError: the message has the measured difference.
    """
    try:
        model = OnnxModel(data, source="the exported model")
    except ModelFileError as error:
        raise OutputNamesError(error.message) from None
    random_images = make_random_images(model.input_format)
    expected, random_expected = source.predict(images), source.predict(random_images)
    few = np.argsort(expected.max(axis=1), kind="stable")[:VARIATION_IMAGES]
    variation = max(
        measure_variation(source, random_images, random_expected),
        measure_variation(source, images[few], expected[few]),
    )
    difference, telling = measure_difference(model, source, images, expected, "image files", variation)
    random_difference, random_telling = measure_difference(
        model, source, random_images, random_expected, "random images", variation
    )
    parity = Parity(
        images=len(images),
        random_images=len(random_images),
        image_difference=difference,
        random_difference=random_difference,
        source_variation=variation,
        allowed=find_tolerance(variation),
        telling=telling + random_telling,
    )
    return model, parity


def measure_variation(source: SourceModel, images: NDArray[np.uint8], answers: NDArray[np.float32]) -> float:
    """Largest absolute difference of the source from itself: eager, one by one, and with pixels off by a rounding.

    All of these are the same model to whoever trained it, so no conversion can be asked to be closer.

    Args:
        source: the trained model.
        images: uint8 [N, height, width, channels].
        answers: the source's, as a graph and in batches.
    """
    pixels = images.astype(np.float32)
    random = np.random.RandomState(0)
    eps = np.finfo(np.float32).eps

    def answer_otherwise() -> Iterator[NDArray[np.float32]]:
        yield source.predict(pixels, batch_size=EAGER_BATCH_SIZE, is_eager=True)
        yield source.predict(pixels, batch_size=1)
        # At each pixel for itself, and all pixels of a channel alike, which no average over the image takes out again.
        signs = random.choice([-1, 1], pixels.shape[3:])
        for rounding in (random.choice([-1, 1], pixels.shape), signs, -signs):
            yield source.predict(pixels * (1 + rounding * eps).astype(np.float32))

    return float(np.max([np.abs(other - answers).max() for other in answer_otherwise()]))


def find_tolerance(variation: float) -> float:
    """The bound of parity for a source that varies by so much itself; NaN gives the tightest."""
    return min(max(LEAST_TOLERANCE, VARIATION_FACTOR * variation), MOST_TOLERANCE)


def measure_difference(
    model: OnnxModel,
    source: SourceModel,
    images: NDArray[np.uint8],
    expected: NDArray[np.float32],
    what: str,
    variation: float,
) -> tuple[float, int]:
    """Largest absolute difference of a probability from what the source answers, and how many are not saturated.

    The difference, one by one and of the first in batches, is checked against the bound. Labels must be the same on all
    images but those that lie at the threshold, nearer than the source's own variation.
    """
    allowed = find_tolerance(variation)
    single = run_batches(model, split_batches(images, 1))
    batched = run_batches(model, split_batches(images[:BATCHED_IMAGES]))
    pairs = ((single, expected), (batched, expected[:BATCHED_IMAGES]))
    for name, (answer, source_answer) in zip(("one by one", "in batches"), pairs, strict=True):
        if answer.shape != source_answer.shape:
            raise OutputShapeError(
                f"on {what} {name} the shape is {answer.shape}, the source's is {source_answer.shape}"
            )
    difference = float(np.max([np.abs(answer - source_answer).max() for answer, source_answer in pairs]))
    if not difference <= allowed:  # so written that NaN fails
        raise OutputValuesError(
            f"on {what} the probabilities differ by {difference:.3g} from the source model's "
            f"(allowed: {allowed:.2g}), more than its own way of computing explains"
        )
    spec, threshold = model.spec, model.spec.threshold
    for answer, source_answer in pairs:
        wanted = spec.positive_scores(source_answer)
        is_away = np.abs(wanted - threshold) > max(LEAST_TOLERANCE, variation)
        flipped = is_away & ((spec.positive_scores(answer) > threshold) != (wanted > threshold))
        if flipped.any():
            raise OutputValuesError(
                f"on {what} {flipped.sum()} of {len(answer)} get another label than from the source model, at the "
                f"threshold {threshold:g} (it answers {wanted[flipped][0]:.6f}): take a threshold between two answers"
            )
    sums = single.sum(axis=1)
    if single.min() < 0 or not np.allclose(sums, 1, atol=1e-4):
        raise OutputValuesError(
            f"on {what} the answers are not probabilities: from {single.min():.3g} to {single.max():.3g}, "
            f"sums from {sums.min():.3g} to {sums.max():.3g}; {advise_activation(source)}"
        )
    return difference, int((single.max(axis=1) < 1 - SATURATED).sum())


def run_batches(model: OnnxModel, batches: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """The answers to all batches, in their order; each is computed by one thread, as many at a time as processors."""
    with ThreadPoolExecutor(count_processors()) as pool:
        return np.concatenate(list(pool.map(model.run, batches)))


def advise_activation(source: SourceModel) -> str:
    """What to do about answers that are no probabilities."""
    if source.activation is not None:
        return "the model answers no numbers that can be logits"
    if source.outputs == 1:
        return "if they are logits of one class, --activation sigmoid"
    return (
        "if they are logits, --activation softmax; independent sigmoids are no probabilities of classes that exclude "
        "each other: train the model with a softmax or one sigmoid"
    )
