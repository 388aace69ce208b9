"""``predictions.csv`` and ``patients.csv``: every answer of a run or an evaluation, for whoever computes figures anew.

docs/make-a-model.md says what each column means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.pixels import write_csv
from training.evaluation.decision import Threshold
from training.evaluation.figures import Floats, Predictions
from training.evaluation.patient_level import find_positive_patients, score_patients
from training.evaluation.positive import answer_classes

PREDICTIONS, PATIENTS = "predictions.csv", "patients.csv"
BETWEEN = " | "
"""Stands between several files, patients or groups in one cell."""


@dataclass(frozen=True)
class AnswerSheet:
    """Answers about N images, with all that is known of these; sequences are [N]."""

    predictions: Predictions
    threshold: Threshold
    """Of the decision on slices; one, or one for each image."""

    labels: Sequence[str]
    """Of the model, C of them."""

    positive: NDArray[np.int64]
    """Indices of its positive labels."""

    probabilities: Floats
    """[N, C]."""

    actual: Sequence[str]
    """Label of each image, as the data set calls it."""

    patients: Sequence[str | None]
    parts: Sequence[str]
    """Part of the split that each image is in; empty text where that is not known."""

    folds: Sequence[str]
    """Number of the fold in which each was held out, from 1; empty text where there are none."""

    subgroups: Mapping[str, Sequence[str]]
    """By the column that says them."""


def name_columns(labels: Sequence[str]) -> list[str]:
    """Returns the columns with the probability of each class."""
    return [f"probability_{label}" for label in labels]


def complete_probabilities(scores: Floats, labels: Sequence[str], positive: NDArray[np.int64]) -> Floats:
    """Returns the probabilities [N, 2] of two classes, of which the scores [N] say one."""
    probabilities = np.repeat(1 - scores[:, np.newaxis], len(labels), axis=1)
    probabilities[:, positive] = scores[:, np.newaxis]
    return probabilities


def write_predictions(path: Path, sheet: AnswerSheet) -> None:
    """Writes a line for each image."""
    predictions = sheet.predictions
    answered = answer_classes(sheet.probabilities, sheet.positive, sheet.threshold)
    columns: dict[str, Sequence[object]] = {
        "file": predictions.files,
        "patient": sheet.patients,
        "label": sheet.actual,
        "positive": predictions.positive.astype(int).tolist(),
        "part": sheet.parts,
        "fold": sheet.folds,
        "probability": predictions.scores.tolist(),
        "answered": [sheet.labels[index] for index in answered],
        "answered_positive": (predictions.scores > sheet.threshold).astype(int).tolist(),
        **dict(zip(name_columns(sheet.labels), sheet.probabilities.T.tolist(), strict=True)),
        "trivial": predictions.trivial.tolist(),
    }
    write_columns(path, columns, sheet.subgroups)


def write_patients(path: Path, sheet: AnswerSheet, top_k: NDArray[np.int64], threshold: Floats) -> None:
    """Writes a line for each person.

    Args:
        path: the file.
        sheet: the answers about their images.
        top_k: [G], of how many highest scores the score of each is the mean.
        threshold: [G], to be exceeded by it.
    """
    predictions = sheet.predictions
    groups, scores = predictions.groups, predictions.scores
    people = range(len(top_k))
    order = np.lexsort((-scores, groups))
    members = np.split(order, np.cumsum(np.bincount(groups))[:-1])
    means = np.empty(len(top_k))
    for rule in np.unique(top_k):
        means[top_k == rule] = score_patients(scores, groups, int(rule))[top_k == rule]
    columns: dict[str, Sequence[object]] = {
        "patient": [join_texts(sheet.patients, members[person]) for person in people],
        "positive": find_positive_patients(predictions.positive, groups).astype(int).tolist(),
        "part": [join_texts(sheet.parts, members[person]) for person in people],
        "fold": [join_texts(sheet.folds, members[person]) for person in people],
        "probability": means.tolist(),
        "threshold": threshold.tolist(),
        "answered_positive": (means > threshold).astype(int).tolist(),
        "slices": [len(members[person]) for person in people],
        "deciding_files": [
            BETWEEN.join(predictions.files[index] for index in members[person][: top_k[person]]) for person in people
        ],
    }
    subgroups = {
        name: [join_texts(values, members[person]) for person in people] for name, values in sheet.subgroups.items()
    }
    write_columns(path, columns, subgroups)


def join_texts(values: Sequence[str | None], members: NDArray[np.int64]) -> str:
    """Returns the different texts of some images in one cell."""
    return BETWEEN.join(dict.fromkeys(value for index in members.tolist() if (value := values[index])))


def write_columns(path: Path, columns: Mapping[str, Sequence[object]], subgroups: Mapping[str, Sequence[str]]) -> None:
    """Writes columns side by side; a subgroup's name is marked, so that none hides another column."""
    named = {**columns, **{f"subgroup_{name}": values for name, values in subgroups.items()}}
    write_csv(path, list(named), list(zip(*named.values(), strict=True)))
