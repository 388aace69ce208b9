"""Everything that is measured of a model on labelled images, beside what needs no model, with intervals over people.

``choose_decision`` sees validation images only; ``evaluate`` chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss

from training.errors import TrainingError
from training.evaluation.bootstrap import Ratio, Statistic, bootstrap_intervals, wilson_interval
from training.evaluation.calibration import bin_reliability, compute_calibration_error, weighted_calibration_error
from training.evaluation.classes import evaluate_classes
from training.evaluation.decision import (
    Threshold,
    count_confusion,
    measure_decision,
    restate_values,
    trace_decisions,
    weighted_decision,
    weighted_restated,
)
from training.evaluation.figures import (
    Band,
    Baselines,
    Bools,
    Evaluation,
    Figure,
    Floats,
    Level,
    PatientLevel,
    Predictions,
    Restated,
)
from training.evaluation.nearest import MID_GREY, Nearest
from training.evaluation.operating_point import choose_threshold
from training.evaluation.patient_classes import evaluate_patient_classes
from training.evaluation.patient_level import choose_top_k, find_positive_patients, score_patients
from training.evaluation.ranking import (
    GRID,
    compute_auc,
    compute_average_precision,
    compute_matched_auc,
    compute_specificity_at,
    cut_octiles,
    has_both,
    trace_precision_recall,
    trace_roc,
    weighted_auc,
    weighted_curves,
    weighted_specificity_at,
)

NOT_PEOPLE = (
    "People are not known: each image counts as one person, so the intervals are too narrow, and images of one person "
    "may have been in training."
)


@dataclass(frozen=True)
class Decision:
    """What was settled before the images were looked at: how slices, and people, are decided on."""

    threshold: float
    """To be exceeded by the score of a slice."""

    rule: str
    """How it was chosen and where, for people to read."""

    top_k: int = 0
    """A person's score is the mean of so many highest scores. 0: there is no rule for people; one is called positive
    when any slice is."""

    patient_threshold: float = 0.0
    """To be exceeded by the score of a person, where there is a rule."""


def choose_decision(rule: str, scores: Floats, positive: Bools, groups: NDArray[np.int64] | None) -> Decision:
    """Chooses threshold, number of slices and threshold of people on validation images.

    There is no rule for people where they are not known, have one image each, or are all of one class.

    Args:
        rule: see ``operating_point.parse_rule``.
        scores: [N], calibrated probabilities of the positive label on validation images.
        positive: [N], true for images that have it; both classes must occur.
        groups: [N], any numbers that tell people, or their studies, apart; None where they are not known.
    """
    threshold = choose_threshold(rule, scores, positive)
    where = f"{rule}, chosen on {len(scores):,} validation images"
    if groups is None:
        return Decision(threshold, where)
    groups = np.unique(groups, return_inverse=True)[1]
    people = find_positive_patients(positive, groups)
    where = f"{where} of {len(people):,} people"
    if len(people) == len(groups) or not has_both(people):
        return Decision(threshold, where)
    top_k = choose_top_k(scores, positive, groups)
    return Decision(threshold, where, top_k, choose_threshold(rule, score_patients(scores, groups, top_k), people))


def evaluate(
    predictions: Predictions,
    decision: Decision,
    *,
    model: str,
    data: str,
    prevalences: Sequence[float] = (),
    majority_positive: bool | None = None,
    nearest: Nearest | None = None,
    trivial_name: str = MID_GREY,
    warnings: Sequence[str] = (),
) -> Evaluation:
    """Evaluates a model's predictions.

    Args:
        predictions: of the model; both classes must occur.
        decision: how they are decided on.
        model: what answered, for people to read.
        data: on what, likewise.
        prevalences: at which PPV and NPV are restated, each in (0, 1).
        majority_positive: whether the positive class is the more frequent one of the training images; None: as it is
            among these images, which is the most that always answering the same can reach.
        nearest: the nearest neighbour's answers on the same images.
        trivial_name: what ``predictions.trivial`` is.
        warnings: what a reader has to know; more are added.

    Raises:
        TrainingError: only one class occurs.
    """
    scores, positive, groups = predictions.scores, predictions.positive, predictions.groups
    if not has_both(positive):
        raise TrainingError(
            f"all {len(positive):,} images of {data} are {'positive' if positive.any() else 'negative'}; figures need "
            "both classes: check --positive and --label-column"
        )
    values, statistics = measure_level(scores, positive, decision.threshold)
    octiles = cut_octiles(predictions.trivial)
    values |= {"matched_auc": compute_matched_auc(scores, positive, predictions.trivial)}
    statistics |= {"matched_auc": weighted_auc(scores, positive, octiles)}
    beside: dict[str, Statistic] = {"trivial": weighted_auc(predictions.trivial, positive)}
    if nearest is not None:
        beside["nearest"] = Ratio(nearest.is_right, np.ones(len(scores)))
    if prevalences:
        beside["restated"] = weighted_restated(weighted_decision(scores, positive, decision.threshold), prevalences)
    ends = bootstrap_intervals({**statistics, **beside, "curves": weighted_curves(scores, positive)}, groups)
    ends["average_precision"] = ends["curves"][:, 0]
    widen_certain(ends, values, scores, positive, groups, decision.threshold)
    roc_ends, precision_ends = np.split(ends["curves"][:, 1:], 2, axis=1)
    if majority_positive is None:
        majority_positive = bool(positive.mean() > 0.5)
    patients = evaluate_patients(predictions, decision)
    return Evaluation(
        model=model,
        data=data,
        operating_point=decision.rule,
        slices=Level(
            count=len(scores),
            positives=int(positive.sum()),
            threshold=decision.threshold,
            figures={name: make_figure(value, ends[name]) for name, value in values.items()},
            confusion=count_confusion(scores, positive, decision.threshold),
        ),
        patients=patients,
        baselines=Baselines(
            majority_accuracy=float((positive == majority_positive).mean()),
            trivial_auc=make_figure(compute_auc(predictions.trivial, positive), ends["trivial"]),
            nearest_accuracy=make_figure(float(nearest.is_right.mean()), ends["nearest"]) if nearest else None,
            nearest_random_accuracy=nearest.random_accuracy if nearest else None,
            trivial_name=trivial_name,
        ),
        restated=tuple(
            restate(values, ends, share, ends["restated"][:, 2 * index : 2 * index + 2])
            for index, share in enumerate(prevalences)
        ),
        roc=Band(GRID, trace_roc(scores, positive), *roc_ends),
        precision_recall=Band(GRID, trace_precision_recall(scores, positive), *precision_ends),
        reliability=bin_reliability(scores, positive),
        decision=trace_decisions(scores, positive),
        warnings=(*warnings, *(() if predictions.has_patients else (NOT_PEOPLE,))),
        classes=evaluate_classes(predictions.classes, decision.threshold, groups) if predictions.classes else None,
        patient_classes=evaluate_patient_classes(predictions, patients),
    )


def measure_level(
    scores: Floats, positive: Bools, threshold: Threshold
) -> tuple[dict[str, float], dict[str, Statistic]]:
    """Returns the figures of slices or people in the order of a report, and the same as functions of weights.

    The interval of the average precision is not among the latter: it comes from ``weighted_curves``.
    """
    values = {
        "auc": compute_auc(scores, positive),
        "average_precision": compute_average_precision(scores, positive),
        "specificity_at_95": compute_specificity_at(scores, positive),
        **measure_decision(scores, positive, threshold),
        "brier": float(brier_score_loss(positive, scores)),
        "ece": compute_calibration_error(scores, positive),
    }
    statistics: dict[str, Statistic] = {
        "auc": weighted_auc(scores, positive),
        "specificity_at_95": weighted_specificity_at(scores, positive),
        **weighted_decision(scores, positive, threshold),
        "brier": Ratio((scores - positive) ** 2, np.ones(len(scores))),
        "ece": weighted_calibration_error(scores, positive),
    }
    return values, statistics


def evaluate_patients(predictions: Predictions, decision: Decision) -> PatientLevel | None:
    """Evaluates the predictions about people; None where people are not known, or each has one image only."""
    people = int(predictions.groups.max()) + 1
    if not predictions.has_patients or people == len(predictions.groups):
        return None
    top_k, threshold = decision.top_k, decision.patient_threshold
    if not top_k:
        top_k, threshold = 1, decision.threshold
    scores = score_patients(predictions.scores, predictions.groups, top_k)
    positive = find_positive_patients(predictions.positive, predictions.groups)
    return measure_people(scores, positive, threshold, top_k)


def measure_people(scores: Floats, positive: Bools, threshold: Threshold, top_k: int) -> PatientLevel:
    """Evaluates the predictions about people, of whom ``scores`` and ``positive`` [G] are known.

    Where people have thresholds of their own, the median is said to be that of the level.
    """
    values, statistics = measure_level(scores, positive, threshold)
    ends = bootstrap_intervals({**statistics, "curves": weighted_curves(scores, positive)}, np.arange(len(scores)))
    ends["average_precision"] = ends["curves"][:, 0]
    widen_certain(ends, values, scores, positive, np.arange(len(scores)), threshold)
    return PatientLevel(
        count=len(scores),
        positives=int(positive.sum()),
        threshold=float(np.median(threshold)),
        figures={name: make_figure(value, ends[name]) for name, value in values.items()},
        confusion=count_confusion(scores, positive, threshold),
        top_k=top_k,
    )


def widen_certain(
    ends: dict[str, Floats],
    values: Mapping[str, float],
    scores: Floats,
    positive: Bools,
    groups: NDArray[np.int64],
    threshold: Threshold,
) -> None:
    """Replaces the intervals of shares that are 0 or 1 by Wilson's, with people as the count.

    No resample of answers that are all right has a wrong one, so that the bootstrap would claim certainty: where 31 of
    31 were found, a sensitivity of 0.89 is still within the interval.
    """
    called = scores > threshold
    among = {
        "sensitivity": positive,
        "specificity": ~positive,
        "ppv": called,
        "npv": ~called,
        "accuracy": np.ones(len(scores), bool),
    }
    for name, images in among.items():
        if values[name] in (0.0, 1.0):
            people = len(np.unique(groups[images]))
            ends[name] = np.array(wilson_interval(round(values[name] * people), people))


def make_figure(value: float, ends: Floats) -> Figure:
    return Figure(value, float(ends[0]), float(ends[1]))


def restate(values: Mapping[str, float], ends: Mapping[str, Floats], prevalence: float, drawn: Floats) -> Restated:
    """Restates PPV and NPV at a prevalence.

    Args:
        values: sensitivity and specificity.
        ends: low and high of both, [2] each.
        prevalence: in (0, 1).
        drawn: [2, 2], low and high of PPV and NPV by bootstrap. Where sensitivity or specificity is 0 or 1 it
            claims certainty (``widen_certain``); then both at their low and both at their high end count, which is
            wider, since PPV and NPV grow with both.
    """
    rates = np.array([values["sensitivity"]]), np.array([values["specificity"]])
    ppv, npv = restate_values(*rates, prevalence)
    if {values["sensitivity"], values["specificity"]} & {0.0, 1.0}:
        drawn = np.stack(restate_values(ends["sensitivity"], ends["specificity"], prevalence), axis=1)
    return Restated(prevalence, make_figure(float(ppv[0]), drawn[:, 0]), make_figure(float(npv[0]), drawn[:, 1]))
