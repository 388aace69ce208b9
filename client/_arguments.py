"""What several commands read from their arguments. Standard library only."""

from __future__ import annotations

import argparse
import math

DEFAULT_SETTLE = 0.5
"""Seconds for which a file under watch must not have changed before it is read."""

MOST_RATE = 10_000.0
"""Images per second that may be asked for: more than one process of Python can send."""


def read_seconds(text: str) -> float:
    """Returns a time of 0 s or more, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def read_counts(text: str) -> list[int]:
    """Returns numbers of at least 1 that commas part, for argparse."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1, or several with commas")
    return counts


def read_rates(text: str) -> list[float]:
    """Returns numbers above 0, and of ``MOST_RATE`` at most, that commas part, for argparse."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = [0.0]
    if not all(0 < rate <= MOST_RATE for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in (0, {MOST_RATE:.0f}], or several with commas")
    return rates
