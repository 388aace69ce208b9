"""Golden vectors: inputs that anyone can make again from a seed, with what a model answered to them where it was made.

They are in the manifest (``server.models.manifest``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.models.strict_json import check_keys, is_whole, read_list, read_number

MOST_CLASSES = 1000
PROBABILITY_SLACK = 1e-3
"""Probabilities are sums of rounded numbers."""

MOST_SUMS = 512
"""Of rows and columns of a heatmap."""

GOLDEN_GRID = 8
"""Cells a side of the coarse pattern in a golden input."""


@dataclass(frozen=True)
class GoldenVector:
    """A seed of ``make_golden_input`` and the probabilities, in label order, that belong to it."""

    seed: int
    probabilities: tuple[float, ...]
    outlier_score: float = 0.0
    """0, which is left out of JSON: the model has no such output."""

    def to_document(self) -> dict[str, Any]:
        """The entry of ``golden``."""
        document: dict[str, Any] = {"seed": self.seed, "probabilities": list(self.probabilities)}
        return {**document, "outlier_score": self.outlier_score} if self.outlier_score else document

    @classmethod
    def from_document(cls, document: Any) -> GoldenVector:
        """Reads an entry of ``golden``.

        Raises:
            ValueError: it is no such entry.
        """
        check_keys(document, {"seed", "probabilities"}, {"outlier_score"})
        seed = document["seed"]
        if not (is_whole(seed) and 0 <= seed < 2**32):
            raise ValueError("a seed is not a whole number in [0, 2**32)")
        return cls(seed, read_probabilities(document["probabilities"]), read_score(document.get("outlier_score", 0.0)))


def read_probabilities(value: Any) -> tuple[float, ...]:
    """The probabilities of one answer.

    Raises:
        ValueError: they are not.
    """
    probabilities = tuple(map(read_number, read_list(value, MOST_CLASSES)))
    if not all(-PROBABILITY_SLACK <= p <= 1 + PROBABILITY_SLACK for p in probabilities):
        raise ValueError("a probability is not in [0, 1]")
    return probabilities


def read_score(value: Any) -> float:
    """An outlier score.

    Raises:
        ValueError: it is none.
    """
    score = read_number(value)
    if not 0 <= score < math.inf:
        raise ValueError("an outlier score is not a number from 0")
    return score


def read_heatmap_sums(value: Any) -> tuple[float, ...]:
    """Sums of rows and columns of a heatmap.

    Raises:
        ValueError: they are not.
    """
    sums = tuple(map(read_number, read_list(value, MOST_SUMS)))
    if not all(0 <= one < math.inf for one in sums):
        raise ValueError("a sum of a heatmap is not a number from 0")
    return sums


def make_golden_input(seed: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Makes the input of a golden vector: uint8 [height, width, channels], all channels alike, as in a grey image.

    A coarse pattern under fine noise, so that early and late layers both have something to answer. NumPy guarantees the
    stream of ``RandomState`` for ever (NEP 19), which it does not for its newer generators.
    """
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 200, (GOLDEN_GRID, GOLDEN_GRID), dtype=np.uint8)
    rows, columns = (np.arange(side) * GOLDEN_GRID // side for side in (height, width))
    grey = coarse[np.ix_(rows, columns)] + random.randint(0, 56, (height, width), dtype=np.uint8)
    return np.ascontiguousarray(np.repeat(grey[:, :, np.newaxis], channels, axis=2))
