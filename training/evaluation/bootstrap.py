"""95 % intervals: percentile bootstrap over people, vectorised over resamples, and Wilson's for single proportions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from training.evaluation.figures import Floats

Statistic = Callable[[Floats], Floats]
"""From weights [R, N], how often each of R resamples holds each of N images, to figures [R] or curves [R, P]; NaN where
a resample does not define them."""

RESAMPLES = 2000
LEVEL = 0.95
CHUNK_ELEMENTS = 1_000_000
"""Elements of one weight matrix, 8 MB: bounds the memory of the bootstrap, and stays near the processor's cache."""


def bootstrap_intervals(
    statistics: Mapping[str, Statistic], groups: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Floats]:
    """Returns the percentile bootstrap interval (95 %) of each statistic, whole groups drawn with replacement.

    Slices of one person are not independent; drawing slices would make the interval far too narrow. All statistics see
    the same resamples. Those in which a statistic is not defined are left out.

    Args:
        statistics: by name.
        groups: [N], number of the person of each image, 0 to G-1.
        resamples: how many.
        seed: seed of the draw.

    Returns:
        By name, low and high: [2], or [2, P] for a curve; NaN where the statistic never is defined.
    """
    drawn = draw_values(statistics, groups, resamples=resamples, seed=seed)
    return {name: find_quantiles(values) for name, values in drawn.items()}


def draw_values(
    statistics: Mapping[str, Statistic], groups: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Floats]:
    """Returns each statistic of each resample, [R] or [R, P]; for the arguments see ``bootstrap_intervals``."""
    rng = np.random.default_rng(seed)
    count = int(groups.max()) + 1
    sum_people = Ratios({name: part for name, part in statistics.items() if isinstance(part, Ratio)}, groups)
    others = {name: part for name, part in statistics.items() if not isinstance(part, Ratio)}
    chunk = max(1, CHUNK_ELEMENTS // max(len(groups), count))
    values: dict[str, list[Floats]] = {name: [] for name in statistics}
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, np.newaxis] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
        for name, shares in sum_people(times).items():
            values[name].append(shares)
        weights = np.take(times, groups, axis=1)
        for name, statistic in others.items():
            values[name].append(statistic(weights))
    return {name: np.concatenate(parts) for name, parts in values.items()}


def find_quantiles(values: Floats) -> Floats:
    """Returns the ends [2, …] of the middle 95 % along the first axis of [R, …], NaN left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all are NaN, the ends are
        ends: Floats = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return ends


@dataclass(frozen=True)
class Ratio:
    """A statistic: the ratio of two sums over the images."""

    numerator: NDArray[np.generic]
    """[N], numbers or truth values."""

    denominator: NDArray[np.generic]
    """[N], likewise; where they add up to 0 the ratio is NaN."""

    def __call__(self, weights: Floats) -> Floats:
        return divide(weights @ self.numerator.astype(np.float64), weights @ self.denominator.astype(np.float64))


class Ratios:
    """Many ratios at once: the sums of each person are made once, and each resample adds up people, not images."""

    def __init__(self, ratios: Mapping[str, Ratio], groups: NDArray[np.int64]) -> None:
        self._names = list(ratios)
        columns = [column for ratio in ratios.values() for column in (ratio.numerator, ratio.denominator)]
        self._sums = np.stack([np.bincount(groups, column) for column in columns], axis=1) if columns else None

    def __call__(self, times: Floats) -> dict[str, Floats]:
        """Returns each ratio [R] from how often each resample holds each person [R, G]."""
        if self._sums is None:
            return {}
        sums = times @ self._sums
        return {name: divide(sums[:, 2 * index], sums[:, 2 * index + 1]) for index, name in enumerate(self._names)}


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divides arrays of one shape, with NaN where the denominator is 0."""
    quotient: Floats = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Returns Wilson's score interval (95 %) of a proportion; it stays in [0, 1] and is right for small counts."""
    interval = binomtest(successes, count).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
