"""From slices to patients by class: what a person has, and what was answered of which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.evaluation.classes import evaluate_classes
from training.evaluation.figures import ClassAnswers, ClassFigures, PatientLevel, Predictions
from training.evaluation.patient_level import find_highest
from training.evaluation.positive import score_positive


def evaluate_patient_classes(predictions: Predictions, patients: PatientLevel | None) -> ClassFigures | None:
    """Evaluates the answers about people class by class; None where there are two classes, no figures of people, or
    nobody has one class alone.

    Args:
        predictions: of slices.
        patients: the figures of these people, by whose rule they are answered.
    """
    if predictions.classes is None or patients is None:
        return None
    answers = answer_people(predictions.classes, predictions.groups, patients.top_k)
    return evaluate_people_by_class(answers, patients.threshold)


def evaluate_people_by_class(answers: ClassAnswers, threshold: float | NDArray[np.float64]) -> ClassFigures | None:
    """Evaluates the answers about people, of whom each is a row; None where there are none."""
    people = len(answers.targets)
    return evaluate_classes(answers, threshold, np.arange(people)) if people else None


def answer_people(answers: ClassAnswers, groups: NDArray[np.int64], top_k: int) -> ClassAnswers:
    """Returns the answers about people with one class alone, a row each.

    A person is of the class of their positive slices, and where none is positive of that of all; who has several has
    none. The probabilities are means over the slices that make the score, as a server answers a study.

    Args:
        answers: about slices, [N].
        groups: [N], number of the person, 0 to G-1, none left out.
        top_k: slices that make the score of a person, at least 1.
    """
    count, people = len(answers.labels), int(groups.max()) + 1
    shown = np.zeros((people, count), bool)
    shown[groups, answers.targets] = True
    is_positive = np.isin(np.arange(count), answers.positive)
    shown &= is_positive | ~(shown & is_positive).any(axis=1, keepdims=True)
    kept = shown.sum(axis=1) == 1
    used = find_highest(score_positive(answers.probabilities, answers.positive), groups, top_k)
    sums = np.zeros((people, count))
    np.add.at(sums, groups[used], answers.probabilities[used])
    means = sums / np.bincount(groups[used])[:, np.newaxis]
    return replace(answers, probabilities=means[kept], targets=shown[kept].argmax(axis=1))
