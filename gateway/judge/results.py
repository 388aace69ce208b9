"""Results of an answer, as the queue keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from client import StrokeClient, StrokeClientError, StudyPrediction, StudySeries, Window
from gateway.judge.writing import WrittenResults
from gateway.results.answer import make_unjudged
from gateway.results.headers import read_headers
from gateway.results.make import make_results
from gateway.results.settings import ResultSettings

MOST_MODELS = 16
"""Whose windows are remembered."""


class ResultMaker:
    """Makes the results that the settings ask for.

    Args:
        settings: which, and how.
        client: asks the server what window a model has.
    """

    def __init__(self, settings: ResultSettings, client: StrokeClient) -> None:
        self._settings, self._client = settings, client
        self._windows: dict[str, Window | None] = {}

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
        results = make_results(prediction, read_headers(paths), self._settings, now, self._find_window(prediction))
        files = {one.name: one.data for one in results.objects} | results.texts
        return WrittenResults(files, tuple(one.sop_instance_uid for one in results.objects), results.record)

    def _find_window(self, prediction: StudyPrediction) -> Window | None:
        """The window of the model that has answered, of several the first; None: the server does not tell. Asked once
        for each model."""
        if prediction.first_look is None or "sc" not in self._settings.results:
            return None
        if prediction.digest not in self._windows:
            try:
                model = self._client.model_info(prediction.model, prediction.version)
            except StrokeClientError:
                return None
            if len(self._windows) >= MOST_MODELS:
                self._windows.clear()
            self._windows[prediction.digest] = next(iter(model.windows), None)
        return self._windows[prediction.digest]
