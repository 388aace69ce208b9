"""Many times and their percentiles, in memory that does not grow with the length of a run."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence

MOST_KEPT = 1_000_000
"""Times that are kept, 8 bytes each. Of more, a uniform sample of so many tells the percentiles: the 99.9th is then
known to a few hundredths of a percent of rank, more closely than any load repeats itself."""


class Latencies:
    """Times of one kind, all in one unit, each >= 0. Not for several threads at once."""

    def __init__(self) -> None:
        self._kept = array("d")
        self._sum = 0.0
        self._random = random.Random(0)
        self.count = 0
        """Number of times so far."""

        self.minimum = 0.0
        """The smallest; 0 without any."""

        self.maximum = 0.0
        """The largest; 0 without any."""

    @property
    def mean(self) -> float:
        """Mean of all times; 0 without any."""
        return self._sum / self.count if self.count else 0.0

    @property
    def kept(self) -> Sequence[float]:
        """The times themselves: all of them in their order, up to ``MOST_KEPT``; not to be changed."""
        return self._kept

    def add(self, value: float) -> None:
        """Takes one time."""
        self.minimum = min(self.minimum, value) if self.count else value
        self.maximum = max(self.maximum, value)
        self._sum += value
        self.count += 1
        if len(self._kept) < MOST_KEPT:
            self._kept.append(value)
        elif (place := self._random.randrange(self.count)) < MOST_KEPT:  # Vitter's algorithm R
            self._kept[place] = value

    def find_percentiles(self, percents: Sequence[float]) -> list[float]:
        """Returns the percentiles, as ``find_percentile`` does; zeros without any time."""
        values = sorted(self._kept)
        return [find_percentile(values, percent) if values else 0.0 for percent in percents]


def find_percentile(values: Sequence[float], percent: float) -> float:
    """Returns the nearest rank, a value that really occurred: the smallest that at least ``percent`` of them do not
    exceed.

    Args:
        values: at least one, ascending.
        percent: in [0, 100].
    """
    # 1e-9 keeps 99.9 % of 1000, which is a little more than 999 as a float, at 999.
    return values[max(math.ceil(len(values) * percent / 100 - 1e-9), 1) - 1]
