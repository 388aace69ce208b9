"""What can go wrong with a training run through its input; shown as one line, exit code 2."""

from __future__ import annotations


class TrainingError(ValueError):
    """The data, a flag or the run folder is not usable; the message says what happened and what to do.

    A ``ValueError``, for that is what a command line is told of a flag (``server.flags``).
    """
