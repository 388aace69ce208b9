"""Figures from measurements: percentiles, medians with their spread, and ratios taken round by round.

Absolute figures drift from minute to minute on shared machines; what two sides did within one round compares.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np


def describe_latencies(latencies_ms: Sequence[float]) -> dict[str, float]:
    """Percentiles 50, 90 and 99 in milliseconds, and the number that they come from; none of these from nothing."""
    if not latencies_ms:
        return {"count": 0}
    p50, p90, p99 = (round(float(value), 3) for value in np.percentile(latencies_ms, (50, 90, 99)))
    return {"count": len(latencies_ms), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}


def take(rounds: Sequence[dict[str, Any]], key: str) -> list[float]:
    """One figure of each round."""
    return [float(entry[key]) for entry in rounds]


def divide(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Ratios of figures that were taken in the same round.

    Raises:
        ValueError: the sides have not the same number of rounds.
    """
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def summarise(values: Sequence[float], form: str = ".2f") -> str:
    """Median with minimum and maximum."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
