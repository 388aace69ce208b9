"""AUCs with intervals, and their difference on the same slices, after DeLong, DeLong and Clarke-Pearson (1988).

The difference of two models on the same slices varies much less than each of their AUCs: hard slices are hard for both.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NORMAL_QUANTILE = 1.959963984540054
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
    above, below = np.sort(scores[positive]), np.sort(scores[~positive])
    of_positives = (
        np.searchsorted(below, scores[positive], "left") + np.searchsorted(below, scores[positive], "right")
    ) / (2 * len(below))
    of_negatives = 1 - (
        np.searchsorted(above, scores[~positive], "left") + np.searchsorted(above, scores[~positive], "right")
    ) / (2 * len(above))
    return of_positives, of_negatives


def estimate_mean(positives: Floats, negatives: Floats) -> tuple[float, float, float]:
    """Returns the mean of placements, or of their differences, and its 95 % interval."""
    mean = float(positives.mean())
    half = NORMAL_QUANTILE * math.sqrt(positives.var(ddof=1) / len(positives) + negatives.var(ddof=1) / len(negatives))
    return mean, mean - half, mean + half
