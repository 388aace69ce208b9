"""AUCs with intervals, and their difference on the same slices, after DeLong, DeLong and Clarke-Pearson (1988).

The difference of two models on the same slices varies much less than each of their AUCs: hard slices are hard for both.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Floats = NDArray[np.float64]

NORMAL_QUANTILE = float(norm.ppf(0.975))
"""Of the standard normal distribution at 0.975, for two-sided 95 % intervals."""


def estimate_auc(scores: Floats, positive: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Returns the AUC and its 95 % interval.

    Args:
        scores: [N], higher for positive ones.
        positive: [N]; both classes occur at least twice.
    """
    return estimate_mean(*place_scores(scores, positive))


def compare_aucs(scores: Floats, base: Floats, positive: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Returns by how much the AUC of ``scores`` exceeds that of ``base``, and the 95 % interval of that; all [N]."""
    pairs = zip(place_scores(scores, positive), place_scores(base, positive), strict=True)
    positives, negatives = (ours - theirs for ours, theirs in pairs)
    return estimate_mean(positives, negatives)


def place_scores(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Returns the share of negatives that each positive exceeds [P], and of positives above each negative [M].

    Ties count half. The mean of either is the AUC.
    """
    above, below = scores[positive], scores[~positive]
    ranks = rankdata(np.concatenate([above, below]))  # among all; less that among its own, it counts the others below
    of_positives = (ranks[: len(above)] - rankdata(above)) / len(below)
    of_negatives = 1 - (ranks[len(above) :] - rankdata(below)) / len(above)
    return of_positives, of_negatives


def estimate_mean(positives: Floats, negatives: Floats) -> tuple[float, float, float]:
    """Returns the mean of placements, or of their differences, and its 95 % interval."""
    mean = float(positives.mean())
    half = NORMAL_QUANTILE * math.sqrt(positives.var(ddof=1) / len(positives) + negatives.var(ddof=1) / len(negatives))
    return mean, mean - half, mean + half
