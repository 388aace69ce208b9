"""Whether two AUCs on the same images differ: the test of DeLong, DeLong and Clarke-Pearson (Biometrics 1988).

The components are found from midranks, as Sun and Xu (IEEE Signal Processing Letters 2014) do: N log N in place of
every pair. It takes images for independent of each other, which slices of one person are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from training.evaluation.bootstrap import LEVEL
from training.evaluation.figures import Bools, Figure, Floats


@dataclass(frozen=True)
class AucTest:
    """Two AUCs on the same images, compared; NaN where they cannot be."""

    difference: Figure
    """The second less the first, with its 95 % interval."""

    error: float
    """Standard error of the difference."""

    p: float
    """Two-sided: how likely a difference so large is where there is none. 1 where all pairs are in the same order."""


def find_components(scores: Floats, positive: Bools) -> tuple[Floats, Floats]:
    """Returns for each positive image the share of negative ones that it exceeds, and the other way round: [P], [Q].

    Ties count half. The mean of either is the AUC.
    """
    ones, zeros = scores[positive], scores[~positive]
    together = rankdata(np.concatenate([ones, zeros]))  # ranks from 1, those of equal scores their mean
    of_positive: Floats = (together[: len(ones)] - rankdata(ones)) / len(zeros)
    of_negative: Floats = 1 - (together[len(ones) :] - rankdata(zeros)) / len(ones)
    return of_positive, of_negative


def compare_aucs(first: Floats, second: Floats, positive: Bools) -> AucTest:
    """Tests whether two models rank the same images equally well.

    Args:
        first: [N], scores of one model.
        second: [N], scores of the other.
        positive: [N], true for positive images. Of each class there must be two, or nothing is known of their spread.
    """
    count, others = int(positive.sum()), int((~positive).sum())
    if min(count, others) < 2:
        return AucTest(Figure(math.nan, math.nan, math.nan), math.nan, math.nan)
    parts = [find_components(scores, positive) for scores in (first, second)]
    # The variance of the difference, from which the covariances of the two models drop out by themselves.
    apart = [after - before for before, after in zip(*parts, strict=True)]
    difference = float(apart[0].mean())
    variance = apart[0].var(ddof=1) / count + apart[1].var(ddof=1) / others
    error = math.sqrt(variance)
    if error == 0:
        return AucTest(Figure(difference, difference, difference), 0.0, 1.0 if difference == 0 else 0.0)
    reach = float(norm.ppf((1 + LEVEL) / 2)) * error
    p = 2 * float(norm.sf(abs(difference) / error))
    return AucTest(Figure(difference, difference - reach, difference + reach), error, p)
