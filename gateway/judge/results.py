"""Results of an answer, as the queue keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from client import StrokeClientError, StudyPrediction, StudySeries
from gateway.judge.writing import WrittenResults


def make_written_results(
    answer: StudyPrediction | StrokeClientError, paths: Sequence[Path], left_out: Sequence[StudySeries], now: datetime
) -> WrittenResults:
    """TEMPORARY."""
    import hashlib

    text = str(answer).encode()
    return WrittenResults({"answer.txt": text}, (hashlib.sha256(text).hexdigest(),), {})
