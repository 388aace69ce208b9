"""Whether two files of a model decide alike, such as fp32 and INT8.

The converter's accuracy gate asks it of a variant before it is written, and whoever moves the threshold of a model asks
it anew: at another threshold the same small differences of a probability change other labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.models.contract import ModelSpec

LEAST_AGREEMENT = 0.995
"""Share of slices that must get the same label."""

ONE_LABEL = 1
"""Changed labels that are allowed in any case: of fewer than 200 slices one alone would be more than the share."""


def is_alike(share: float, slices: int) -> bool:
    """Whether two files decide alike of whose answers to so many slices a share has the same label. So written that
    NaN is not."""
    return share >= LEAST_AGREEMENT or round((1 - share) * slices, 6) <= ONE_LABEL


def share_labels(
    spec: ModelSpec, answers: NDArray[np.floating], others: NDArray[np.floating], threshold: float
) -> float:
    """The share of slices that get the same label of both answers, probabilities [N, labels], at a threshold."""
    before, after = (spec.find_labels(each, threshold) for each in (answers, others))
    return float((before == after).mean())


def find_differences(
    spec: ModelSpec, answers: NDArray[np.floating], others: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Returns the absolute difference of a probability, [N], of answers [N, labels]: of the positive labels, and of
    more than two labels that of the one with the largest difference, if that is larger."""
    sets = list_sets(spec)
    before, after = (add_probabilities(each, sets) for each in (answers, others))
    differences: NDArray[np.float64] = np.abs(after - before).max(axis=1)
    return differences


def list_sets(spec: ModelSpec) -> list[tuple[int, ...]]:
    """Sets of labels, as indices, whose probabilities are compared: the positive ones, and of more than two labels each
    one alone. Of two the other one's says the same."""
    alone = [(index,) for index in range(len(spec.labels))] if len(spec.labels) > 2 else []
    return [spec.positive_indices, *alone]


def add_probabilities(answers: NDArray[np.floating], sets: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
    """The probability of each set of labels, [N, sets]."""
    return np.stack([answers[:, list(those)].astype(np.float64).sum(axis=1) for those in sets], axis=1)
