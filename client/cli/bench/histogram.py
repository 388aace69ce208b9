"""A histogram of latencies in fixed memory, after HdrHistogram (github.com/HdrHistogram/HdrHistogram, Gil Tene).

Values are whole microseconds. They fall into buckets that each cover twice the range of the one before, and each bucket
has the same number of equal sub-buckets, enough that values in one of them agree in their first three digits: 2048
sub-buckets, the smallest power of two of at least 2 * 10**3. From 1 us to one hour that takes 22 buckets, of which all
but the first use their upper half alone: 23,552 counters of 8 bytes, 188 kB, however many values are counted.
"""

from __future__ import annotations

import math
from array import array

SIGNIFICANT_DIGITS = 3
HIGHEST_MICROSECONDS = 3_600_000_000
"""One hour. What takes longer is counted as an hour; no call of this client can."""

_HALF_BITS = 10
_HALF = 1 << _HALF_BITS
"""Sub-buckets in half a bucket: values in one of them differ by less than 1/1024 of their size."""


class LatencyHistogram:
    """Counts latencies and tells their percentiles, to three significant digits."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * (_find_index(HIGHEST_MICROSECONDS) // _HALF + 1) * _HALF))
        self._sum = 0
        self.count = 0
        """Number of values so far."""

        self.minimum = 0.0
        """The smallest value in seconds, exact to the microsecond; 0 without values."""

        self.maximum = 0.0
        """The largest value in seconds, exact to the microsecond; 0 without values."""

    @property
    def mean(self) -> float:
        """Mean of the values in seconds, exact to the microsecond; 0 without values."""
        return self._sum / self.count / 1e6 if self.count else 0.0

    def record(self, seconds: float) -> None:
        """Counts one latency, >= 0 s."""
        microseconds = min(round(1e6 * seconds), HIGHEST_MICROSECONDS)
        self._counts[_find_index(microseconds)] += 1
        self._sum += microseconds
        rounded = microseconds / 1e6
        self.minimum = min(self.minimum, rounded) if self.count else rounded
        self.maximum = max(self.maximum, rounded)
        self.count += 1

    def percentile(self, percent: float) -> float:
        """Returns the latency in seconds that ``percent``, in [0, 100], of the values do not exceed; 0 without values.

        It is the largest value of the sub-bucket that the percentile falls into, as in HdrHistogram, and never more
        than the maximum: at most 0.1 % too high.
        """
        # Rounded up, because 99 % of 50 values are all 50 of them; 1e-9 keeps 99.9 % of 1000, a float, at 999.
        wanted = max(math.ceil(self.count * percent / 100 - 1e-9), 1)
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return min(_find_highest(index) / 1e6, self.maximum)
        return self.maximum


def _find_index(microseconds: int) -> int:
    """Returns which counter a value belongs to."""
    shift = max(microseconds.bit_length() - _HALF_BITS - 1, 0)
    return (shift << _HALF_BITS) + (microseconds >> shift)


def _find_highest(index: int) -> int:
    """Returns the largest value, in microseconds, that belongs to a counter."""
    shift = max((index >> _HALF_BITS) - 1, 0)
    return ((index - (shift << _HALF_BITS) + 1) << shift) - 1
