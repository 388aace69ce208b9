"""Figures from measurements: percentiles, medians with their spread, and ratios taken round by round.

Absolute figures drift from minute to minute on shared machines; what two sides did within one round compares.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from client.cli.latencies import find_percentile


def describe_latencies(latencies_ms: Sequence[float]) -> dict[str, float]:
    """Percentiles 50, 90 and 99 in milliseconds, and the number that they come from; none of these from nothing."""
    if not latencies_ms:
        return {"count": 0}
    ordered = sorted(latencies_ms)
    p50, p90, p99 = (round(find_percentile(ordered, percent), 3) for percent in (50, 90, 99))
    return {"count": len(latencies_ms), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}


def take(rounds: Sequence[dict[str, Any]], key: str) -> list[float]:
    """One figure of each round."""
    return [float(entry[key]) for entry in rounds]


def divide(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Ratios of figures that were taken in the same round; NaN where there was nothing to compare with, as in a round
    that is shorter than an answer takes.

    Raises:
        ValueError: the sides have not the same number of rounds.
    """
    return [above / below if below else math.nan for above, below in zip(numerators, denominators, strict=True)]


def summarise(values: Sequence[float], form: str = ".2f") -> str:
    """Median with minimum and maximum."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def round_figures(value: Any) -> Any:
    """Rounds every number to five significant digits: more is noise, and would make every diff unreadable."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: round_figures(entry) for key, entry in value.items()}
    return [round_figures(entry) for entry in value] if isinstance(value, list) else value
