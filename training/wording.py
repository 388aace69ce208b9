"""Counts in sentences."""

from __future__ import annotations


def count_nouns(count: int, noun: str) -> str:
    """Returns ``1 image``, ``2,501 images``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
