"""Images as they are predicted: decoded ahead of the model, with what needs no model taken from the same pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.errors import ImageError
from server.images.preprocess import load_pixels
from server.machine.processors import count_processors
from training.data.duplicates import SIDE, sum_blocks
from training.evaluation.figures import Bools, Floats
from training.evaluation.nearest import score_trivially
from training.judge.predictors import Answer, Asked, Predictor, map_ahead


@dataclass(frozen=True)
class Picture:
    """One decoded image; ``refusal`` says why there are no pixels."""

    digest: str
    pixels: NDArray[np.uint8] | None
    """As the predictor takes them; None where it takes files."""

    small: NDArray[np.uint16] | None
    """[1024], see ``training.data.duplicates.sum_blocks``."""

    trivial: float
    is_coloured: bool = False
    refusal: str = ""


@dataclass(frozen=True)
class Answers:
    """What was answered about N images, in their order."""

    scores: Floats
    """[N], NaN where refused."""

    trivial: Floats
    """[N], share of mid-grey pixels."""

    small: NDArray[np.uint16]
    """[N, 1024], see ``training.data.duplicates.sum_blocks``; 0 where refused."""

    digests: tuple[str, ...]
    """SHA-256 of each file's bytes."""

    refusals: tuple[str, ...]
    """Why an image was refused; empty where there is a score."""

    probabilities: Floats
    """[N, C] of the model's labels, where there are more than two, else [N, 0]; NaN where refused."""

    coloured: int
    """Number of images that were predicted though they have colours."""

    @property
    def is_judged(self) -> Bools:
        """[N], true for images with a score."""
        return ~np.isnan(self.scores)


def ask_predictor(predictor: Predictor, files: Sequence[Path], progress: Callable[[int, int], None]) -> Answers:
    """Decodes all files and asks about them, a bounded number at a time.

    Args:
        predictor: what is asked. One that takes files is asked about all of them, another about those that can be
            decoded.
        files: the images.
        progress: called with the number of answers and of files.
    """
    pictures: list[Picture] = []
    small = np.zeros((len(files), SIDE**2), np.uint16)
    answers: dict[int, Answer] = {}
    asked: list[int] = []

    def list_asked(decoded: Iterator[Picture]) -> Iterator[Asked]:
        for index, picture in enumerate(decoded):
            if picture.small is not None:
                small[index] = picture.small
            pictures.append(replace(picture, pixels=None, small=None))  # so that memory does not grow with them
            if predictor.input_format is None or not picture.refusal:
                asked.append(index)
                yield files[index], picture.pixels

    with ThreadPoolExecutor(count_processors()) as pool:
        decoded = map_ahead(pool, lambda path: read_picture(path, predictor), files)
        for index, answer in enumerate(predictor.ask(list_asked(decoded))):
            answers[asked[index]] = answer
            progress(asked[index] + 1, len(files))
    refusals = [
        picture.refusal or (answers[index].refusal if index in answers else "")
        for index, picture in enumerate(pictures)
    ]
    scores = [np.nan if refusal else answers[index].score for index, refusal in enumerate(refusals)]
    probabilities = np.full(
        (len(pictures), max((len(one.probabilities) for one in answers.values()), default=0)), np.nan
    )
    for index, answer in answers.items():
        if answer.probabilities:
            probabilities[index] = answer.probabilities
    coloured = sum(picture.is_coloured and not refusal for picture, refusal in zip(pictures, refusals, strict=True))
    return Answers(
        scores=np.array(scores, np.float64),
        trivial=np.array([picture.trivial for picture in pictures]),
        small=small,
        digests=tuple(picture.digest for picture in pictures),
        refusals=tuple(refusals),
        probabilities=probabilities,
        coloured=coloured,
    )


def read_picture(path: Path, predictor: Predictor) -> Picture:
    """Decodes one file for a predictor, and as the networks of this package take it for what needs no model."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    input_format, plain_format = predictor.input_format, predictor.plain_format
    try:
        decoded = load_pixels(data, plain_format)
        pixels = decoded.array
        if input_format not in (None, plain_format):
            pixels = load_pixels(data, input_format).array
    except ImageError as error:
        return Picture(digest, None, None, np.nan, refusal=error.message)
    return Picture(
        digest,
        pixels if input_format else None,
        sum_blocks(decoded.array[np.newaxis, ..., 0])[0],
        float(score_trivially(decoded.array[np.newaxis])[0]),
        any(warning.reason == "IMAGE_COLOURED" for warning in decoded.warnings),
    )
