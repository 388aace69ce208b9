"""Client of StrokeServe: sends brain-CT slices to the server and returns its judgements.

    from client import StrokeClient

    with StrokeClient("127.0.0.1:50051") as client:
        prediction = client.predict("scan.png")
        print(prediction.label, prediction.confidence)

``AsyncStrokeClient`` has the same methods as coroutines. Both judge studies as a whole (``predict_study``), and
classify folders on one stream:

        for result in client.predict_many(Path("series").glob("*.png")):
            print(result.source, result.error if isinstance(result, PredictionFailure) else result.label)

From the wheel the package is called ``strokeserve_client``.

It sends the bytes of the file as they are and preprocesses nothing. Every failure is a ``StrokeClientError``.
Research software: not a medical device, not for diagnosis.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._aio import AsyncStrokeClient
    from ._client import StrokeClient
    from ._config import KeepAliveConfig, RetryConfig, TLSConfig
    from ._errors import (
        AuthenticationError,
        ClientClosedError,
        DeadlineExceededError,
        ImageReadError,
        ImageTooLargeError,
        IntegrityError,
        InvalidImageError,
        InvalidRequestError,
        ModelNotFoundError,
        OverloadedError,
        ServerError,
        ServerUnavailableError,
        StrokeClientError,
    )
    from ._proto import __version__ as __version__
    from ._types import (
        AnalysisStatus,
        Explanation,
        HealthStatus,
        ImageWarning,
        ModelInfo,
        Prediction,
        PredictionFailure,
        Reason,
        Timings,
        Window,
    )
    from .study.types import StudyPrediction, StudySeries, StudySlice

__all__ = [
    "AnalysisStatus",
    "AsyncStrokeClient",
    "AuthenticationError",
    "ClientClosedError",
    "DeadlineExceededError",
    "Explanation",
    "HealthStatus",
    "ImageReadError",
    "ImageTooLargeError",
    "ImageWarning",
    "IntegrityError",
    "InvalidImageError",
    "InvalidRequestError",
    "KeepAliveConfig",
    "ModelInfo",
    "ModelNotFoundError",
    "OverloadedError",
    "Prediction",
    "PredictionFailure",
    "Reason",
    "RetryConfig",
    "ServerError",
    "ServerUnavailableError",
    "StrokeClient",
    "StrokeClientError",
    "StudyPrediction",
    "StudySeries",
    "StudySlice",
    "TLSConfig",
    "Timings",
    "Window",
]

_HOMES = {
    **dict.fromkeys(__all__, "_errors"),
    **dict.fromkeys(
        (
            "AnalysisStatus",
            "Explanation",
            "HealthStatus",
            "ImageWarning",
            "ModelInfo",
            "Prediction",
            "PredictionFailure",
            "Reason",
            "Timings",
            "Window",
        ),
        "_types",
    ),
    **dict.fromkeys(("StudyPrediction", "StudySeries", "StudySlice"), "study.types"),
    **dict.fromkeys(("KeepAliveConfig", "RetryConfig", "TLSConfig"), "_config"),
    "AsyncStrokeClient": "_aio",
    "StrokeClient": "_client",
    "__version__": "_proto",
}
"""Modules of the public names."""


def __getattr__(name: str) -> object:
    # Names are fetched at first use: `python -m client --help` imports this package, and grpc alone takes 0.15 s.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
