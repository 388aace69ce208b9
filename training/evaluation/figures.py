"""What is known of a model on labelled images: plain data; ``evaluate`` computes it, ``plots`` and ``report`` show it.

Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.data.given import SplitCheck

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
class ClassAnswers:
    """What a model answered that tells more than two classes apart."""

    labels: tuple[str, ...]
    """Of the model, C of them."""

    positive: NDArray[np.int64]
    """Indices of its positive labels."""

    probabilities: Floats
    """[N, C]."""

    targets: NDArray[np.int64]
    """[N], index into ``labels`` of what is on each image."""

    def choose(self, chosen: Bools) -> ClassAnswers:
        """The answers on some of the images, [N]."""
        return replace(self, probabilities=self.probabilities[chosen], targets=self.targets[chosen])


@dataclass(frozen=True)
class Predictions:
    """A model's predictions on labelled images; arrays are [N]."""

    files: tuple[str, ...]
    """Paths below the data folder, with forward slashes."""

    scores: Floats
    """Probability of the positive labels together, in [0, 1]."""

    positive: Bools
    """True for images that have one of them."""

    groups: NDArray[np.int64]
    """Number of the person, 0 to G-1; each image its own where people are not known."""

    trivial: Floats
    """The score that needs no model: share of mid-grey pixels, in [0, 1], unless another was named."""

    has_patients: bool
    """Whether ``groups`` are people; otherwise intervals count each image as one person and are too narrow."""

    classes: ClassAnswers | None = None
    """The answers by class, where there are more than two and each image is known to have one of them."""


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
class ClassFigures:
    """The figures of slices, or of people, by class, where there are more than two."""

    labels: tuple[str, ...]
    positive_labels: tuple[str, ...]
    figures: tuple[Mapping[str, Figure], ...]
    """For each label: auc (against all others), sensitivity, ppv."""

    overall: Mapping[str, Figure]
    """macro_auc and macro_sensitivity, which are means over the classes, and accuracy."""

    majority_accuracy: float
    """Accuracy of always answering the class that is most frequent here."""

    confusion: tuple[tuple[int, ...], ...]
    """Images, or people, by what they show, a row each label, and by what was answered."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Images, or people, of each label."""
        return tuple(map(sum, self.confusion))


@dataclass(frozen=True)
class Subgroup:
    """The figures of the images, or people, of which a column of labels.csv says the same."""

    value: str
    """What it says."""

    count: int
    people: int
    """Images count as people where people are not known."""

    positives: int
    figures: Mapping[str, Figure]
    """auc, matched_auc (of slices), sensitivity, specificity, ece; NaN where ``too_few`` names it."""

    too_few: tuple[str, ...]
    """Figures that are not given, since fewer people than ``subgroups.LEAST_PEOPLE`` stand behind them."""


@dataclass(frozen=True)
class Gap:
    """The largest difference of a figure between two subgroups of a column, with its 95 % interval."""

    difference: Figure
    highest: str
    lowest: str


@dataclass(frozen=True)
class Subgroups:
    """The figures by what a column of labels.csv says."""

    column: str
    level: str
    """``slices`` or ``patients``."""

    groups: tuple[Subgroup, ...]
    smallest: str
    """The one with the fewest people."""

    gaps: Mapping[str, Gap]
    """auc, sensitivity and specificity, as far as two groups have the figure."""


@dataclass(frozen=True)
class OwnSplit:
    """What the split that the data set brings leaks, and the figures without it."""

    check: SplitCheck
    others: Subgroup | None
    """Test images that are not known from training or validation; None where all or none are known."""


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
    classes: ClassFigures | None = None
    """None where there are two, or it is not known which an image has."""

    patient_classes: ClassFigures | None = None
    """Of people who have one class alone; None where there is nobody, or no figures of people or by class."""

    subgroups: tuple[Subgroups, ...] = ()
    """For each column that was named, slices and, where they are known, patients."""

    own_split: OwnSplit | None = None
    """None where the split was made here, or there was none."""
