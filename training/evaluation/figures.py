"""What is known of a model on labelled images: plain data; ``evaluate`` computes it, ``plots`` and ``report`` show it.

Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Epoch:
    """One line of ``history.csv``."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    val_auc: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Predictions:
    """A model's predictions on labelled images; arrays are [N]."""

    files: tuple[str, ...]
    """Paths below the data folder, with forward slashes."""

    scores: Floats
    """Probability of the positive label, in [0, 1]."""

    positive: Bools
    """True for images that have it."""

    groups: NDArray[np.int64]
    """Number of the person, 0 to G-1; each image its own where people are not known."""

    trivial: Floats
    """The score that needs no model: share of mid-grey pixels, in [0, 1], unless another was named."""

    has_patients: bool
    """Whether ``groups`` are people; otherwise intervals count each image as one person and are too narrow."""


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Confusion:
    """Counts of a decision at one threshold."""

    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int


@dataclass(frozen=True)
class Level:
    """The figures at one level: of slices, or of patients."""

    count: int
    positives: int
    threshold: float
    figures: Mapping[str, Figure]
    """By name, in the order of a report: auc, average_precision, specificity_at_95 (of sensitivity),
    sensitivity, specificity, ppv, npv, f1, accuracy, brier, ece; slices also matched_auc."""

    confusion: Confusion


@dataclass(frozen=True)
class PatientLevel(Level):
    """Figures of people: a person's score is the mean of the ``top_k`` highest scores of the slices."""

    top_k: int = 1
    """Chosen on validation patients."""


@dataclass(frozen=True)
class Baselines:
    """What needs no training, on the same images; None where it was not computed."""

    majority_accuracy: float
    """Accuracy of always answering the more frequent class: of the training images, or where they are not known, of
    these."""

    trivial_auc: Figure
    """AUC of ``trivial_name``."""

    nearest_accuracy: Figure | None = None
    """Accuracy of the nearest training image's label (1-NN on 32 x 32 pixels), people held out."""

    nearest_random_accuracy: float | None = None
    """The same with a random split of slices: leakage, beside the honest one."""

    random_split: Mapping[str, float] | None = None
    """Figures of the same network trained on a random split of slices: leakage, beside the honest ones."""

    trivial_name: str = "share of mid-grey pixels"
    """The score that needs no model."""


@dataclass(frozen=True)
class Band:
    """A curve over a fixed grid with its pointwise 95 % interval; arrays are [P]."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed, in bins of equal width; arrays are [B], NaN in empty bins."""

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Restated:
    """PPV and NPV as they would be at another prevalence, by Bayes' rule from sensitivity and specificity."""

    prevalence: float
    ppv: Figure
    npv: Figure


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per image over thresholds (Vickers 2006); arrays are [P]. Answering no one is 0 everywhere."""

    thresholds: Floats
    model: Floats
    all_positive: Floats


@dataclass(frozen=True)
class Evaluation:
    """Everything that is measured of a model on one set of labelled images."""

    model: str
    data: str
    operating_point: str
    """The rule that chose the threshold, and where: 'sensitivity=0.95, chosen on 120 validation images'."""

    slices: Level
    patients: PatientLevel | None
    """None where people are not known, or each has one image."""

    baselines: Baselines
    restated: tuple[Restated, ...]
    roc: Band
    """x: 1 - specificity, y: sensitivity."""

    precision_recall: Band
    """x: sensitivity (recall), y: PPV (precision)."""

    reliability: Reliability
    decision: DecisionCurve
    warnings: tuple[str, ...] = ()
