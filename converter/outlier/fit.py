"""The score: how far features lie from those of slices, in the directions in which slices differ, and in all others.

A principal component analysis of standardised features parts them in two. Within its components the distance is
Mahalanobis's; what it leaves over counts by its own mean square. Each part is divided by its number of dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConversionError

MOST_COMPONENTS = 128
MOST_SHARE = 0.75
"""Components, at most, as a share of the features."""

SLICES_EACH = 4
"""Slices for each component, at least: with fewer its spread would be that of these very slices."""

LEAST_SPREAD = 0.01
"""Of a feature, as a share of the largest one of its group: less is taken for rounding, so that a feature which is the
same on all slices cannot make an image an outlier by a hair."""

LEAST_VARIANCE = 1e-4
"""Of a component, and of what is left over, as a share of the mean; for the same reason."""

SHARE = 0.01
"""Of the validation slices, the share above the threshold."""


@dataclass(frozen=True)
class Fit:
    """An affine map of D features whose length is the score, as float64."""

    matrix: NDArray[np.float64]
    """[D, D]."""

    bias: NDArray[np.float64]
    """[D]."""

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores [N] of features [N, D]: what ``converter.outlier.surgery`` makes of them in the graph."""
        return np.asarray(np.linalg.norm(features @ self.matrix + self.bias, axis=1))

    def multiply(self, factor: float) -> Fit:
        """The same with all scores multiplied."""
        return Fit(self.matrix * factor, self.bias * factor)


def fit_features(features: NDArray[np.float32], groups: Sequence[int]) -> Fit:
    """Fits features [N, D] of slices, which consist of groups of so many that are of one kind.

    Raises:
        ConversionError: there are too few slices, or a feature is no number.
    """
    wide = features.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ConversionError("the model's features are not numbers on all slices: no outlier score can be fitted")
    count, dimensions = wide.shape
    components = min(MOST_COMPONENTS, count // SLICES_EACH, int(MOST_SHARE * dimensions))
    if components < 1:
        raise ConversionError(f"an outlier score cannot be fitted to {dimensions} features of {count} slices")
    mean, spread = wide.mean(axis=0), wide.std(axis=0)
    parts = np.split(spread, np.cumsum(groups)[:-1])
    scale = 1 / np.concatenate([np.maximum(part, max(LEAST_SPREAD * part.max(), 1e-12)) for part in parts])
    standard = (wide - mean) * scale
    variances, directions = np.linalg.eigh(standard.T @ standard / count)
    variances, directions = variances[::-1], directions[:, ::-1]  # the largest first
    floor = LEAST_VARIANCE * max(float(variances.mean()), 1e-12)
    kept = np.maximum(variances[:components], floor) * components
    left = max(float(variances[components:].mean()), floor) * (dimensions - components)
    lengths = np.sqrt(np.concatenate([kept, np.full(dimensions - components, left)]))
    matrix = scale[:, np.newaxis] * directions / lengths
    return Fit(matrix, -mean @ matrix)


def choose_threshold(scores: Sequence[float] | NDArray[np.float64]) -> float:
    """The score that ``SHARE`` of validation slices exceed.

    Raises:
        ConversionError: there is none, since nothing differs.
    """
    threshold = float(np.quantile(np.asarray(scores), 1 - SHARE))
    if not threshold > 0:
        raise ConversionError("the model's features are the same on all slices: no outlier score can be fitted")
    return threshold
