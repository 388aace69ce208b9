"""What can go wrong with a training run through its input, shown as one line; and counts as its sentences say them."""

from __future__ import annotations


class TrainingError(Exception):
    """The data, a flag or the run folder is not usable; the message says what happened and what to do. Exit code 2."""


def count_nouns(count: int, noun: str) -> str:
    """Returns ``1 image``, ``2,501 images``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
