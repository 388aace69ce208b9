"""Percentiles of many times: one definition, bounded memory."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from client.cli import latencies as _latencies
from client.cli.latencies import Latencies, find_percentile


def collect(values) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    return latencies


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(1, 99, 1), (2, 50, 1), (100, 50, 50), (100, 99, 99), (101, 99, 100), (1000, 99.9, 999), (7, 0, 1), (7, 100, 7)],
)
def test_percentile_is_the_nearest_rank(count: int, percent: float, expected: int) -> None:
    """A time that really occurred: the smallest that so many percent do not exceed."""
    assert find_percentile(range(1, count + 1), percent) == expected


def test_percentiles_are_exact() -> None:
    """The same as numpy's of that definition, which at a count such as 20,000 is one off: its 99.9 is a little more."""
    values = np.random.default_rng(1).lognormal(0, 1.5, 19_997)
    percents = (0.01, 1, 50, 90, 99, 99.9, 99.99, 100)

    latencies = collect(values)

    assert latencies.find_percentiles(percents) == list(np.percentile(values, percents, method="inverted_cdf"))
    assert latencies.mean == pytest.approx(values.mean())
    assert (latencies.minimum, latencies.maximum, latencies.count) == (values.min(), values.max(), 19_997)
    assert list(latencies.kept) == list(values)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more times than are kept, a sample from the whole run tells the percentiles; the extremes stay exact."""
    monkeypatch.setattr(_latencies, "MOST_KEPT", 10_000)

    latencies = collect(range(1, 100_001))

    assert len(latencies.kept) == 10_000
    assert sys.getsizeof(latencies.kept) < 150_000
    for percent, value in zip((10, 50, 99), latencies.find_percentiles((10, 50, 99)), strict=True):
        assert value == pytest.approx(1000 * percent, abs=2000)  # four standard deviations of the median's rank
    assert (latencies.minimum, latencies.maximum, latencies.count, latencies.mean) == (1, 100_000, 100_000, 50_000.5)


def test_nothing_has_no_figures() -> None:
    """Nothing was measured; that is no error."""
    assert (Latencies().find_percentiles([50, 99]), Latencies().mean) == ([0.0, 0.0], 0.0)
