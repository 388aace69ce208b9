"""Figures of merit of a two-class model, with intervals: numpy only, vectorised over bootstrap resamples.

Arguments, all [N]: ``scores`` are probabilities of the positive label in [0, 1], ``positive`` is true for images that
have it, ``groups`` is a number per person from 0 to G-1. ``weights`` [R, N] say how often each of R resamples holds
an image. An image is called positive when its score exceeds the threshold, as in the served decision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Statistic = Callable[[Floats], Floats]

RESAMPLES = 2000
LEVEL = 0.95
CHUNK_ELEMENTS = 4_000_000
"""Elements of one weight matrix, 32 MB: bounds the memory of the bootstrap."""

NORMAL_QUANTILE = 1.959963984540054
"""Of the standard normal distribution at 0.975, for two-sided 95 % intervals."""

TRIVIAL_GREY = (60, 169)
"""Grey values of brain in a brain window; see ``score_trivially``."""

STRATA = 8


@dataclass(frozen=True)
class Confusion:
    """Counts of a decision at one threshold."""

    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int

    @property
    def sensitivity(self) -> float:
        """Share of the positive images that are called positive."""
        return self.true_positives / (self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """Share of the negative images that are not called positive."""
        return self.true_negatives / (self.true_negatives + self.false_positives)

    @property
    def accuracy(self) -> float:
        """Share of the images that are called what they are."""
        return (self.true_positives + self.true_negatives) / self.count

    @property
    def count(self) -> int:
        """Number of images."""
        return self.true_positives + self.false_negatives + self.false_positives + self.true_negatives


def count_confusion(scores: Floats, positive: Bools, threshold: float) -> Confusion:
    """Counts the four outcomes at a threshold."""
    called = scores > threshold
    return Confusion(
        true_positives=int((called & positive).sum()),
        false_negatives=int((~called & positive).sum()),
        false_positives=int((called & ~positive).sum()),
        true_negatives=int((~called & ~positive).sum()),
    )


def compute_auc(scores: Floats, positive: Bools) -> float:
    """Returns the area under the ROC curve: the share of (positive, negative) pairs in the right order, ties half."""
    return float(weighted_auc(scores, positive)(np.ones((1, len(scores))))[0])


def compute_matched_auc(scores: Floats, positive: Bools, covariate: Floats) -> float:
    """Returns the AUC over pairs from the same octile of a covariate: what the covariate cannot explain."""
    return float(weighted_auc(scores, positive, cut_octiles(covariate))(np.ones((1, len(scores))))[0])


def cut_octiles(covariate: Floats) -> NDArray[np.int64]:
    """Returns the octile of each value, 0 to 7."""
    edges = np.quantile(covariate, np.arange(1, STRATA) / STRATA)
    return np.searchsorted(edges, covariate, side="right").astype(np.int64)


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


def weighted_share(hits: Bools, among: Bools) -> Statistic:
    """Returns the share of ``hits`` among the images ``among`` as a function of resample weights."""
    return lambda weights: divide(weights @ (hits & among).astype(float), weights @ among.astype(float))


def count_pairs(scores: Floats, positive: Bools, weights: Floats) -> tuple[Floats, Floats]:
    """Returns [R] pairs in the right order (ties count half) and [R] all (positive, negative) pairs."""
    order = np.argsort(scores, kind="stable")
    ranked, is_positive, weights = scores[order], positive[order], weights[:, order]
    starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
    positives = np.add.reduceat(weights * is_positive, starts, axis=1)
    negatives = np.add.reduceat(weights * ~is_positive, starts, axis=1)
    negatives_below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (negatives_below + negatives / 2)).sum(axis=1)
    return wins, positives.sum(axis=1) * negatives.sum(axis=1)


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divides, with NaN where the denominator is 0."""
    quotient: Floats = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)


def bootstrap_interval(
    statistic: Statistic, groups: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval (95 %) of a statistic, with whole groups drawn with replacement.

    Slices of one person are not independent; drawing slices would make the interval far too narrow. Resamples in which
    the statistic is not defined are left out; NaN where it never is.
    """
    rng = np.random.default_rng(seed)
    count = int(groups.max()) + 1
    chunk = max(1, CHUNK_ELEMENTS // max(len(groups), count))
    values = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, np.newaxis] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        values.append(statistic(times[:, groups].astype(np.float64)))
    known = np.concatenate(values)
    known = known[~np.isnan(known)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Returns Wilson's score interval (95 %) of a proportion; it stays in [0, 1] and is right for small counts."""
    z2 = NORMAL_QUANTILE**2
    share = successes / count
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_QUANTILE * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def score_trivially(images: NDArray[np.uint8]) -> Floats:
    """Returns the share of mid-grey pixels of each image, uint8 [N, H, W, C]: how much brain is in the slice.

    No learning, yet it ranks real slices at an AUC of 0.7 to 0.8, since bleeds are seen where there is brain: the
    baseline that every model has to beat.
    """
    low, high = TRIVIAL_GREY
    grey = images[..., 0]
    share: Floats = ((grey >= low) & (grey <= high)).mean(axis=(1, 2))
    return share
