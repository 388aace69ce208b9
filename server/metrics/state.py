"""Who is asked for the state of a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto import __version__
from server.core import metric_names as names
from server.core.metrics import Gauges, Labels
from server.machine.connections import count_connections
from server.process.log import count_dropped_lines, count_suppressed_lines

if TYPE_CHECKING:
    from server.api.health import Health
    from server.api.interceptors import CallBoundary
    from server.api.service import StrokeServicer
    from server.config import ServerConfig
    from server.core.detector import Detector
    from server.models.registry import ModelRegistry

IMAGE_METHODS = ("Predict", "PredictStream", "PredictBatches")


def provide_state(
    gauges: Gauges,
    config: ServerConfig,
    detector: Detector,
    boundary: CallBoundary,
    servicer: StrokeServicer,
    health: Health,
) -> None:
    """Says who is asked. None of it is kept up to date meanwhile, so it costs nothing until somebody looks."""
    gauges.provide(names.SERVING, lambda: float(health.is_serving))
    gauges.provide(names.IN_FLIGHT, lambda: boundary.in_flight)
    gauges.provide(names.CALLS_FREE, lambda: boundary.free_places)
    gauges.provide(names.CONNECTIONS, lambda: count_connections(config.metrics_port))
    gauges.provide(names.STREAMS, lambda: servicer.open_streams)
    gauges.provide(names.STREAMS_FREE, lambda: max(0, config.streams - servicer.open_streams))
    gauges.provide(names.WORKERS, lambda: detector.plan.workers)
    gauges.provide(names.WORKERS_FREE, lambda: detector.free_workers)
    gauges.provide(names.QUEUE_DEPTH, lambda: detector.waiting)
    gauges.provide(names.QUEUE_PLACES, lambda: config.queue)
    gauges.provide(names.MODEL_INFO, lambda: describe_models(detector.registry))
    gauges.provide(names.SERVER_INFO, lambda: {(__version__,): 1.0})
    gauges.provide(names.LOG_DROPPED, count_dropped_lines)
    gauges.provide(names.LOG_SUPPRESSED, count_suppressed_lines)


def describe_models(registry: ModelRegistry) -> dict[Labels, float]:
    """A series for each model; none before they are loaded."""
    found: dict[Labels, float] = {}
    for model in registry:
        spec, is_default = model.spec, "true" if model is registry.default else "false"
        found[spec.name, spec.version, model.digest, model.options.precision, model.runtime, is_default] = 1.0
    return found
