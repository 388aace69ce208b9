"""The positive set: which classes count as a find, and the one score that everything binary is made of.

Where the score exceeds the threshold, the most probable of the positive classes is answered, otherwise the most
probable of the others: the decision that is served (``server.core.decision``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.models.contract import sum_positive
from training.evaluation.figures import Floats


def find_indices(labels: Sequence[str], chosen: Sequence[str]) -> NDArray[np.int64]:
    """Returns the indices into ``labels`` of the chosen ones, all of which are among them."""
    return np.array([labels.index(label) for label in chosen], np.int64)


def score_positive(probabilities: NDArray[np.floating], positive: NDArray[np.int64]) -> Floats:
    """Returns the score of each image, [N] in [0, 1], from the probabilities [N, C] and the positive classes."""
    return sum_positive(probabilities, positive.tolist()).astype(np.float64)


def answer_classes(
    probabilities: NDArray[np.floating], positive: NDArray[np.int64], threshold: float | Floats
) -> NDArray[np.int64]:
    """Returns the class that is answered for each image, [N].

    Args:
        probabilities: [N, C].
        positive: indices of the positive classes, some and not all.
        threshold: to be exceeded by the score; one, or one for each image [N].
    """
    is_positive = np.isin(np.arange(probabilities.shape[1]), positive)
    called = score_positive(probabilities, positive) > threshold
    allowed = np.where(called[:, np.newaxis], is_positive, ~is_positive)
    answers: NDArray[np.int64] = np.where(allowed, probabilities, -np.inf).argmax(axis=1)
    return answers
