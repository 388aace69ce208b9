"""How well scores rank: AUC, average precision, ROC and precision-recall curves, and the AUC matched by a covariate.

scikit-learn gives the figures themselves. It does not resample: the functions named ``weighted_…`` give the same
figures for many weighted resamples at once, and the matched AUC is not in it.
Arguments, all [N]: ``scores``, ``positive`` is true for images that have the positive label.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from training.evaluation.bootstrap import Statistic, divide
from training.evaluation.figures import Bools, Floats

STRATA = 8
GRID = np.linspace(0, 1, 101)
"""Where the curves are read: specificity and sensitivity in steps of a percent."""


def compute_auc(scores: Floats, positive: Bools) -> float:
    """Returns the area under the ROC curve: the share of (positive, negative) pairs in the right order, ties half.

    NaN where only one class occurs.
    """
    return float(roc_auc_score(positive, scores)) if has_both(positive) else math.nan


def compute_average_precision(scores: Floats, positive: Bools) -> float:
    """Returns the mean of the precision over the recall, a step function (no interpolation); NaN without positives."""
    return float(average_precision_score(positive, scores)) if positive.any() else math.nan


def compute_matched_auc(scores: Floats, positive: Bools, covariate: Floats) -> float:
    """Returns the AUC over pairs from the same octile of a covariate: what the covariate cannot explain."""
    return float(weighted_auc(scores, positive, cut_octiles(covariate))(np.ones((1, len(scores))))[0])


def cut_octiles(covariate: Floats) -> NDArray[np.int64]:
    """Returns the octile of each value, 0 to 7."""
    edges = np.quantile(covariate, np.arange(1, STRATA) / STRATA)
    return np.searchsorted(edges, covariate, side="right").astype(np.int64)


def has_both(positive: Bools) -> bool:
    """Whether both classes occur."""
    return bool(positive.any() and not positive.all())


def trace_roc(scores: Floats, positive: Bools) -> Floats:
    """Returns the sensitivity at each 1 - specificity of ``GRID``, the highest where the curve rises; NaN without both
    classes."""
    if not has_both(positive):
        return np.full(len(GRID), np.nan)
    false_rate, true_rate, _ = roc_curve(positive, scores, drop_intermediate=False)
    traced: Floats = np.interp(GRID, false_rate, true_rate)
    return traced


def trace_precision_recall(scores: Floats, positive: Bools) -> Floats:
    """Returns the precision at the first cut that reaches each recall of ``GRID``; NaN without positives."""
    if not positive.any():
        return np.full(len(GRID), np.nan)
    precision, recall, _ = precision_recall_curve(positive, scores)
    # scikit-learn goes from low cuts to high ones and ends with a point that no cut has.
    precision, recall = precision[-2::-1], recall[-2::-1]
    # At recall 0 stands the first cut with a hit: before it there is no precision but 0.
    traced: Floats = precision[np.searchsorted(recall, np.maximum(GRID, 0.5 / positive.sum()))]
    return traced


def weighted_auc(scores: Floats, positive: Bools, strata: NDArray[np.int64] | None = None) -> Statistic:
    """Returns the AUC as a function of resample weights; over pairs within the same stratum where strata are given.

    It is NaN for a resample without such a pair.
    """
    parts = [slice(None)] if strata is None else [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]

    def statistic(weights: Floats) -> Floats:
        wins, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for part in parts:
            part_wins, part_pairs = count_pairs(scores[part], positive[part], weights[:, part])
            wins, pairs = wins + part_wins, pairs + part_pairs
        return divide(wins, pairs)

    return statistic


def compute_specificity_at(scores: Floats, positive: Bools, sensitivity: float = 0.95) -> float:
    """Returns the highest specificity of a threshold that finds such a share of the positive images; NaN without both
    classes."""
    return float(weighted_specificity_at(scores, positive, sensitivity)(np.ones((1, len(scores))))[0])


def weighted_specificity_at(scores: Floats, positive: Bools, sensitivity: float = 0.95) -> Statistic:
    """Returns ``compute_specificity_at`` as a function of resample weights.

    The threshold is that of each resample: this is what the ROC curve offers there, not what a chosen threshold does.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, is_positive = scores[order], positive[order]
    last = np.flatnonzero(np.concatenate((ranked[1:] != ranked[:-1], [True])))

    def statistic(weights: Floats) -> Floats:
        weights = np.take(weights, order, axis=1)
        true = np.cumsum(weights * is_positive, axis=1)[:, last]
        false = np.cumsum(weights * ~is_positive, axis=1)[:, last]
        # A millionth of an image is rounding: 19 of 20 are a share of 0.95.
        first = (true >= sensitivity * true[:, -1:] - 1e-6).argmax(axis=1)
        alarms = divide(false[np.arange(len(weights)), first], false[:, -1])
        return np.where(true[:, -1] > 0, 1 - alarms, np.nan)

    return statistic


def count_pairs(scores: Floats, positive: Bools, weights: Floats) -> tuple[Floats, Floats]:
    """Returns [R] pairs in the right order (ties count half) and [R] all (positive, negative) pairs."""
    ones, zeros = np.flatnonzero(positive), np.flatnonzero(~positive)
    zeros = zeros[np.argsort(scores[zeros])]
    negatives_below = np.zeros((len(weights), len(zeros) + 1))
    np.cumsum(np.take(weights, zeros, axis=1), axis=1, out=negatives_below[:, 1:])
    positives = np.take(weights, ones, axis=1)
    # A tie counts half: the mean of the negatives that are lower, and of those that are not higher.
    lower, not_higher = (np.searchsorted(scores[zeros], scores[ones], side) for side in ("left", "right"))
    wins = np.einsum("rp,rp->r", positives, np.take(negatives_below, lower, axis=1))
    if (lower != not_higher).any():
        wins = (wins + np.einsum("rp,rp->r", positives, np.take(negatives_below, not_higher, axis=1))) / 2
    return wins, positives.sum(axis=1) * negatives_below[:, -1]


def weighted_curves(scores: Floats, positive: Bools) -> Statistic:
    """Returns average precision, ROC and precision-recall curve in one row [1 + 2 P], as a function of weights.

    In one, since they come from the same sums over the ranked images.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, is_positive = scores[order], positive[order]
    last = np.flatnonzero(np.concatenate((ranked[1:] != ranked[:-1], [True])))
    """Of equal scores the last image: a cut is there or nowhere."""

    def statistic(weights: Floats) -> Floats:
        weights = np.take(weights, order, axis=1)
        true, false = (np.zeros((len(weights), len(last) + 1)) for _ in range(2))
        true[:, 1:] = np.cumsum(weights * is_positive, axis=1)[:, last]
        false[:, 1:] = np.cumsum(weights, axis=1)[:, last] - true[:, 1:]
        called = true + false
        # Before the first image of a resample nothing is called, and no recall is gained.
        precision = np.divide(true, called, out=called, where=called > 0)
        rows = np.full((len(weights), 1 + 2 * len(GRID)), np.nan)
        rows[:, 0] = divide(np.einsum("ru,ru->r", np.diff(true, axis=1), precision[:, 1:]), true[:, -1])
        for row, hits, alarms, share in zip(rows, true, false, precision, strict=True):
            if hits[-1] > 0 and alarms[-1] > 0:
                row[1 : 1 + len(GRID)] = np.interp(GRID * alarms[-1], alarms, hits) / hits[-1]
            if hits[-1] > 0:
                first = np.searchsorted(hits, np.maximum(GRID * hits[-1], 0.5))
                row[1 + len(GRID) :] = share[first]
        return rows

    return statistic
