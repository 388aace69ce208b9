"""What follows from a decision at a threshold: counts, predictive values at another prevalence, net benefit.

An image is called positive when its score exceeds the threshold, as in the served decision (``server.core.detector``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from training.evaluation.bootstrap import Ratio, Statistic, divide
from training.evaluation.figures import Bools, Confusion, DecisionCurve, Floats
from training.evaluation.operating_point import count_above

Threshold = float | Floats
"""Of a decision: one, or one for each score [N]."""

DECISION_THRESHOLDS = np.arange(1, 100) / 100


def count_confusion(scores: Floats, positive: Bools, threshold: Threshold) -> Confusion:
    """Counts the four outcomes at a threshold."""
    (true_negatives, false_positives), (false_negatives, true_positives) = confusion_matrix(
        positive, scores > threshold, labels=[False, True]
    ).tolist()
    return Confusion(true_positives, false_negatives, false_positives, true_negatives)


def measure_decision(scores: Floats, positive: Bools, threshold: Threshold) -> dict[str, float]:
    """Returns sensitivity, specificity, ppv, npv, f1 and accuracy at a threshold; NaN where one is not defined."""
    called = scores > threshold
    undefined = {"zero_division": np.nan}
    return {
        "sensitivity": float(recall_score(positive, called, **undefined)),
        "specificity": float(recall_score(positive, called, pos_label=False, **undefined)),
        "ppv": float(precision_score(positive, called, **undefined)),
        "npv": float(precision_score(positive, called, pos_label=False, **undefined)),
        "f1": float(f1_score(positive, called, **undefined)),
        "accuracy": float(accuracy_score(positive, called)),
    }


def weighted_decision(scores: Floats, positive: Bools, threshold: Threshold) -> dict[str, Ratio]:
    """Returns the figures of ``measure_decision`` as functions of resample weights."""
    called = scores > threshold
    return {
        "sensitivity": Ratio(called & positive, positive),
        "specificity": Ratio(~called & ~positive, ~positive),
        "ppv": Ratio(called & positive, called),
        "npv": Ratio(~called & ~positive, ~called),
        "f1": Ratio(2.0 * (called & positive), called + positive.astype(np.float64)),
        "accuracy": Ratio(called == positive, np.ones(len(scores))),
    }


def restate_values(sensitivity: Floats, specificity: Floats, prevalence: float) -> tuple[Floats, Floats]:
    """Returns PPV and NPV at a prevalence by Bayes' rule; NaN where nobody is called positive, or negative."""
    caught, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    alarms, cleared = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
    return divide(caught, caught + alarms), divide(cleared, cleared + missed)


def weighted_restated(figures: Mapping[str, Ratio], prevalences: Sequence[float]) -> Statistic:
    """Returns PPV and NPV at P prevalences, [R, 2 P], as a function of resample weights; see ``weighted_decision``."""

    def statistic(weights: Floats) -> Floats:
        rates = figures["sensitivity"](weights), figures["specificity"](weights)
        return np.stack([part for share in prevalences for part in restate_values(*rates, share)], axis=1)

    return statistic


def trace_decisions(scores: Floats, positive: Bools) -> DecisionCurve:
    """Returns the net benefit over thresholds: hits less false alarms, each weighed with the odds of the threshold.

    (TP - FP t / (1 - t)) / N, the benefit of treating by the model in units of treated cases per image (Vickers and
    Elkin 2006), beside that of calling every image positive.
    """
    thresholds = DECISION_THRESHOLDS
    odds = thresholds / (1 - thresholds)
    hits = count_above(scores[positive], thresholds)
    alarms = count_above(scores[~positive], thresholds)
    prevalence = positive.mean()
    return DecisionCurve(
        thresholds=thresholds,
        model=(hits - alarms * odds) / len(scores),
        all_positive=prevalence - (1 - prevalence) * odds,
    )
