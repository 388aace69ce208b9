"""Windows of models, in which slices are drawn: asked of the server once for each model."""

from __future__ import annotations

from client import StrokeClient, StrokeClientError, StudyPrediction, Window

MOST_MODELS = 16
"""Whose windows are remembered."""


class ModelWindows:
    """Knows the windows of models that have answered. May be called from several threads.

    Args:
        client: asks the server.
    """

    def __init__(self, client: StrokeClient) -> None:
        self._client = client
        self._found: dict[str, Window | None] = {}

    def __call__(self, prediction: StudyPrediction) -> Window | None:
        """The window of the model that has given this answer, of several the first; None: the server does not tell."""
        known = self._found
        if prediction.digest in known:
            return known[prediction.digest]
        try:
            model = self._client.model_info(prediction.model, prediction.version)
        except StrokeClientError:
            return None
        window = next(iter(model.windows), None)
        self._found = dict([*known.items(), (prediction.digest, window)][-MOST_MODELS:])
        return window
