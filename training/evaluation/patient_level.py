"""From slices to patients: one score for a person, from the scores of the slices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.evaluation.figures import Bools, Floats
from training.evaluation.ranking import compute_auc

TOP_K = (1, 2, 3, 5, 10)
"""Numbers of slices among which ``choose_top_k`` chooses."""


def score_patients(scores: Floats, groups: NDArray[np.int64], top_k: int) -> Floats:
    """Returns the mean of the ``top_k`` highest scores of each person, [G]; of all of them where there are fewer.

    Args:
        scores: [N].
        groups: [N], number of the person, 0 to G-1, none left out.
        top_k: at least 1. The more slices, the likelier is one that is high by chance: a mean over several is less
            moved by it than the highest alone.
    """
    used = find_highest(scores, groups, top_k)
    means: Floats = np.bincount(groups[used], scores[used]) / np.bincount(groups[used])
    return means


def find_highest(scores: Floats, groups: NDArray[np.int64], top_k: int) -> Bools:
    """Returns [N], true for the ``top_k`` slices of each person with the highest scores; see ``score_patients``."""
    order = np.lexsort((-scores, groups))
    sizes = np.bincount(groups)
    rank = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    used = np.zeros(len(groups), bool)
    used[order] = rank < top_k
    return used


def find_positive_patients(positive: Bools, groups: NDArray[np.int64]) -> Bools:
    """Returns [G], true for people with at least one positive slice."""
    return np.bincount(groups, positive) > 0


def choose_top_k(scores: Floats, positive: Bools, groups: NDArray[np.int64]) -> int:
    """Returns the smallest number of slices whose AUC over validation patients cannot be told from the highest.

    That is one within its standard error (the rule of Breiman et al. 1984): among numbers that differ by chance, few
    slices find a lesion that few slices show. It is 1 where all people are of one class, so that nothing can be chosen.
    """
    labels = find_positive_patients(positive, groups)
    aucs = [compute_auc(score_patients(scores, groups, top_k), labels) for top_k in TOP_K]
    if np.isnan(aucs[0]):
        return TOP_K[0]
    enough = max(aucs) - measure_auc_error(max(aucs), int(labels.sum()), int((~labels).sum()))
    return next(top_k for top_k, auc in zip(TOP_K, aucs, strict=True) if auc >= enough)


def measure_auc_error(auc: float, positives: int, negatives: int) -> float:
    """Returns the standard error of an AUC (Hanley and McNeil 1982)."""
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (first - auc**2) + (negatives - 1) * (second - auc**2)
    return float(np.sqrt(max(0.0, spread) / (positives * negatives)))
