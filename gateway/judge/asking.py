"""What is asked of the server, whether a study lies in the queue or in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from client import (
    IntegrityError,
    InvalidImageError,
    InvalidRequestError,
    StrokeClient,
    StrokeClientError,
    StudyPrediction,
    StudySeries,
)
from gateway.reasons import LeftOut


def ask(
    client: StrokeClient, paths: Sequence[Path], *, is_last_try: bool = False
) -> StudyPrediction | StrokeClientError:
    """The answer of a study, or an error that stays.

    Raises:
        StrokeClientError: one that may pass; on the last try only that of bytes that were altered on the way.
    """
    try:
        return client.predict_study(list(paths))
    except (InvalidImageError, InvalidRequestError) as error:
        return error
    except StrokeClientError as error:
        if is_last_try and not isinstance(error, IntegrityError):
            return error
        raise


def describe_not_kept(counts: Mapping[str, int]) -> list[StudySeries]:
    """Series that were not sent to the server, by their UIDs and counts, with the reason."""
    message = "The gateway keeps CT images alone; these objects are of another kind."
    return [StudySeries(series, count, LeftOut.NOT_CT, message) for series, count in counts.items()]
