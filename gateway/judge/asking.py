"""What is asked of the server, whether a study lies in the queue or in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from client import (
    InvalidImageError,
    InvalidRequestError,
    StrokeClient,
    StrokeClientError,
    StudyPrediction,
    StudySeries,
)


def ask(client: StrokeClient, paths: Sequence[Path]) -> StudyPrediction | StrokeClientError:
    """The answer, or an error that stays.

    Raises:
        StrokeClientError: one that may pass.
    """
    try:
        return client.predict_study(list(paths))
    except (InvalidImageError, InvalidRequestError) as error:
        return error


def describe_not_kept(counts: Mapping[str, int]) -> list[StudySeries]:
    """Series that were not sent to the server, by their UIDs and counts, with the reason."""
    message = "The gateway keeps CT images alone; these objects are of another kind."
    return [StudySeries(series, count, "NOT_CT", message) for series, count in counts.items()]
