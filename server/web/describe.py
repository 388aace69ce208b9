"""``GET /models`` and what else is only read: models by what they say of themselves, and health."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from proto import __version__
from server.admission.call import READ, Method
from server.core.detector import Detector
from server.models.runtime import OnnxModel
from server.web.answers import encode_json
from server.web.call import HttpCall

LIST_MODELS, GET_MODEL = Method("GET /models", READ), Method("GET /models/{name}", READ)
JSON = "application/json"


class Describer:
    """Serves the methods that only read."""

    def __init__(self, detector: Detector, is_serving: Callable[[], bool]) -> None:
        self._registry, self._plan = detector.registry, detector.plan
        self._is_serving = is_serving

    async def list_models(self, call: HttpCall) -> Response:
        """All models, ordered by name, then version."""
        default = self._registry.default
        models = [self._describe(model, default) for model in self._registry]
        return Response(encode_json({"models": models}), media_type=JSON)

    async def get_model(self, call: HttpCall) -> Response:
        """One model, with its card."""
        request = call.request
        model = self._registry.get(request.path_params["name"], request.query_params.get("version", ""))
        described = self._describe(model, self._registry.default) | {"model_card": model.spec.model_card}
        return Response(encode_json(described), media_type=JSON)

    def answer_live(self) -> Response:
        """That the process lives: whoever answers, does."""
        return Response(encode_json({"status": "ALIVE"}), media_type=JSON)

    def answer_ready(self) -> Response:
        """Whether images are judged now: what ``grpc.health.v1`` says."""
        status = "SERVING" if self._is_serving() else "NOT_SERVING"
        return Response(encode_json({"status": status}), 200 if self._is_serving() else 503, media_type=JSON)

    def _describe(self, model: OnnxModel, default: OnnxModel) -> dict[str, Any]:
        spec, options = model.spec, model.options
        return {
            "name": spec.name,
            "version": spec.version,
            "digest": model.digest,
            "is_default": model is default,
            "task": spec.task,
            "intended_use": spec.intended_use,
            "labels": list(spec.labels),
            "positive_label": spec.only_positive_label or None,
            "positive_labels": list(spec.positive_labels),
            "threshold": spec.threshold,
            "input_height": model.input_format.height,
            "input_width": model.input_format.width,
            "input_channels": model.input_format.channels,
            "metrics": dict(spec.metrics),
            "provenance": dict(spec.provenance),
            "precision": options.precision,
            "runtime": model.runtime,
            "runtime_version": model.runtime_version,
            "threads": options.threads,
            "busy_threads": options.busy_threads,
            "workers": options.workers,
            "profile": self._plan.profile,
            "server_version": __version__,
            "windows": [{"level": window.level, "width": window.width} for window in spec.windows],
            "study_top_k": spec.study_top_k,
            "study_threshold": spec.study_threshold,
            "outlier_threshold": spec.outlier_threshold,
            "indeterminate_margin": spec.indeterminate_margin,
            "explains": model.explainer is not None,
        }
