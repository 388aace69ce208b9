"""What can go wrong with a training run through its input, shown as one line; and counts as its sentences say them."""

from __future__ import annotations


class TrainingError(ValueError):
    """The data, a flag or the run folder is not usable; the message says what happened and what to do.

    A ``ValueError``, for that is what a command line is told of a flag (``server.flags``).
    """


def count_nouns(count: int, noun: str) -> str:
    """Returns ``1 image``, ``2,501 images``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
