"""Labelled slices as a server judges them: those that it would not analyse are left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.errors import ImageError
from server.images.checks import find_reasons
from server.images.preprocess import load_pixels
from server.machine.processors import count_processors
from server.models.contract import HEAD_CT
from server.models.runtime import OnnxModel
from training.data.groups import join_groups
from training.data.labels import list_data
from training.data.pixels import compute_fingerprint
from training.errors import TrainingError
from training.evaluation.figures import Bools, Floats
from training.evaluation.patient_level import find_positive_patients, score_patients
from training.evaluation.ranking import has_both
from training.judge.labels import find_positive
from training.judge.predictors import Answer, make_answer, map_ahead
from training.progress import Progress
from training.settings.listing import DataConfig


@dataclass(frozen=True)
class Slices:
    """What a model says of labelled slices; arrays are [N], a number each slice that was judged."""

    name: str
    """Of the folder."""

    fingerprint: str
    answers: NDArray[np.float32]
    """Probabilities [N, models, labels] of each model that was asked."""

    scores: Floats
    """Probability of the positive labels, of the first model."""

    positive: Bools
    people: NDArray[np.int64]
    """Person of each slice, from 0; each slice its own where they are not known."""

    studies: NDArray[np.int64] | None
    """Study of each slice, from 0; None where it is not known, or where each has one slice."""

    of_positive_study: Bools
    """Whether the slice's study has a positive slice, be it this one, another, or one that was not judged."""

    left_out: int
    """Slices that a server would not analyse, or not read."""

    @property
    def has_studies(self) -> bool:
        """Whether studies of several slices are known, some positive and some not."""
        return self.studies is not None and has_both(self.of_positive_study)

    def score_studies(self, top_k: int) -> Floats:
        """Score of each study, the mean of its so many highest; there must be studies."""
        assert self.studies is not None
        return score_patients(self.scores, self.studies, top_k)

    def find_studies(self) -> tuple[Bools, NDArray[np.int64]]:
        """Class and person of each study; there must be studies."""
        assert self.studies is not None
        people = np.zeros(int(self.studies.max()) + 1, np.int64)
        people[self.studies] = self.people
        return find_positive_patients(self.of_positive_study, self.studies), number(people)

    def leave_out(self, level: float, margin: float) -> Slices:
        """The same without slices whose probability is nearer to a threshold than a margin: they get no label, and have
        no part in the score of their study."""
        kept = np.abs(self.scores - level) >= margin
        if kept.all():
            return self
        if not kept.any():
            raise TrainingError(f"{self.name}: every slice is within the model's margin of the threshold {level:g}")
        return replace(
            self,
            answers=self.answers[kept],
            scores=self.scores[kept],
            positive=self.positive[kept],
            people=number(self.people[kept]),
            studies=None if self.studies is None else number(self.studies[kept]),
            of_positive_study=self.of_positive_study[kept],
            left_out=self.left_out + int((~kept).sum()),
        )


class Judged(NamedTuple):
    """What was said of one file."""

    digest: str
    """SHA-256 of the file."""

    answer: Answer
    """Of the first model, or why it gives none."""

    probabilities: tuple[NDArray[np.float32], ...] = ()
    """[labels], of each model; empty where nothing was asked."""


def judge_slices(config: DataConfig, folder: Path, models: Sequence[OnnxModel]) -> Slices:
    """Judges the slices of a folder as a server does.

    Args:
        config: labels and people of the slices.
        folder: where they are.
        models: what is asked. The first one says what would be analysed, and makes the scores; others are its variants.

    Raises:
        TrainingError: the folder cannot be used, none of its slices could be judged, or those are all of one class.
    """
    images = list_data(replace(config, data=folder))
    positive = find_positive(config, images, models[0].spec.positive_labels)
    progress = Progress("judging")
    judged: list[Judged] = []
    with ThreadPoolExecutor(count_processors()) as pool:
        paths = [images.root / file for file in images.files]
        for one in map_ahead(pool, lambda path: judge_slice(path, models), paths):
            judged.append(one)
            progress(len(judged), len(paths))
    digests = [one.digest for one in judged]
    scores = np.array([one.answer.score for one in judged])
    kept = ~np.isnan(scores)
    if not kept.any():
        raise TrainingError(f"{folder}: no slice could be judged; the first: {judged[0].answer.refusal}")
    if not has_both(positive[kept]):
        raise TrainingError(f"{folder}: the slices that could be judged are all of one class")
    studies, of_positive_study = None, positive
    if images.has_patients:
        known = images.studies or (None,) * len(images.files)
        keys = number(np.array([str(key) for key in zip(images.patients, known, strict=True)]))
        of_positive_study = find_positive_patients(positive, keys)[keys]
        studies = number(keys[kept]) if len(np.unique(keys[kept])) < int(kept.sum()) else None
    return Slices(
        name=images.root.resolve().name,
        fingerprint=compute_fingerprint(images.files, digests),
        answers=np.array([one.probabilities for one, is_kept in zip(judged, kept, strict=True) if is_kept]),
        scores=scores[kept],
        positive=positive[kept],
        people=number(join_groups(images.patients, digests)[kept]),
        studies=studies,
        of_positive_study=of_positive_study[kept],
        left_out=int((~kept).sum()),
    )


def judge_slice(path: Path, models: Sequence[OnnxModel]) -> Judged:
    """Returns what models say of a file, or why a server would give no answer with the first of them.

    How near the probability is to the threshold does not matter here, where the threshold is what is chosen.
    """
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    model, *variants = models
    try:
        pixels = load_pixels(data, model.input_format)
    except ImageError as error:
        return Judged(digest, Answer(refusal=error.message))
    if model.spec.checks == HEAD_CT and (reasons := find_reasons(pixels)):
        return Judged(digest, Answer(refusal=reasons[0].message))
    image = pixels.array[np.newaxis]
    said, spec = model.score(image), model.spec
    if spec.outlier_threshold and said.outlier[0] > spec.outlier_threshold:
        return Judged(digest, Answer(refusal="The image is unlike those that the model knows."))
    rows = (said.probabilities[0], *(variant.run(image)[0] for variant in variants))
    return Judged(digest, make_answer(rows[0], spec), rows)


def number(values: NDArray[np.generic]) -> NDArray[np.int64]:
    """Returns numbers [N] from 0 that tell values apart."""
    numbers: NDArray[np.int64] = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return numbers
