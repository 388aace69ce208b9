"""Results of an answer, as the queue keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from client import StrokeClientError, StudyPrediction, StudySeries
from gateway.judge.windows import ModelWindows
from gateway.judge.writing import WrittenResults
from gateway.results.answer import make_unjudged
from gateway.results.headers import read_headers
from gateway.results.make import make_results
from gateway.results.settings import ResultSettings


class ResultMaker:
    """Makes the results that the settings ask for.

    Args:
        settings: which, and how.
        windows: in which the slice to look at first is drawn.
    """

    def __init__(self, settings: ResultSettings, windows: ModelWindows) -> None:
        self._settings, self._windows = settings, windows

    def __call__(
        self,
        answer: StudyPrediction | StrokeClientError,
        paths: Sequence[Path],
        left_out: Sequence[StudySeries],
        now: datetime,
    ) -> WrittenResults:
        """Makes results of an answer, or of the error that came in its place.

        Raises:
            ValueError: none of the files is one of a study.
        """
        prediction = make_unjudged(answer) if isinstance(answer, StrokeClientError) else answer
        prediction = replace(prediction, left_out=(*prediction.left_out, *left_out))
        results = make_results(prediction, read_headers(paths), self._settings, now, self._windows)
        files = {one.name: one.data for one in results.objects} | results.texts
        return WrittenResults(files, tuple(one.sop_instance_uid for one in results.objects), results.record)
