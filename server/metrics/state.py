"""Who is asked for the state of a running server."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto import __version__
from server.core import metric_names as names
from server.core.metrics import Gauges, Labels, Metrics
from server.machine.addresses import ListenError
from server.machine.connections import count_connections
from server.metrics.exposition import CONTENT_TYPE, Exposition
from server.metrics.port import MetricsPort
from server.models.activation import ACTIONS
from server.process.log import count_dropped_lines, count_suppressed_lines

if TYPE_CHECKING:
    from server.admission.boundary import Boundary
    from server.admission.places import StreamPlaces
    from server.api.health import Health
    from server.audit.writer import AuditLog
    from server.config import ServerConfig
    from server.core.detector import Detector
    from server.core.shadow import Shadows
    from server.models.activation import Activator
    from server.models.family import Served
    from server.models.registry import ModelRegistry
    from server.security.certificates import Certificates
    from server.security.gate import Gate

logger = logging.getLogger(__name__)

IMAGE_METHODS = ("Predict", "PredictStream", "PredictBatches", "PredictStudy", "ModelInfer", "ModelStreamInfer")
HTTP_METHODS = ("POST /predict", "POST /predict/batch", "POST /v2/models/{name}/infer")


@dataclass(frozen=True)
class State:
    """The parts of a server that are asked."""

    config: ServerConfig
    detector: Detector
    boundary: Boundary
    streams: StreamPlaces
    health: Health
    certificates: Certificates | None
    """None: without TLS."""

    gate: Gate | None
    """None: nobody is asked who they are."""

    audit: AuditLog | None
    """None: none is kept."""

    activator: Activator


async def show(metrics: Metrics, state: State) -> MetricsPort:
    """Opens the port on which all of them are shown.

    Raises:
        ListenError: it cannot be listened on.
    """
    gauges, config = Gauges(), state.config
    explain = ("Explain",) if config.explain else ()
    metrics.expect((*IMAGE_METHODS, *explain, *(HTTP_METHODS if config.http else ())))
    provide_state(gauges, state)
    port = MetricsPort(Exposition(metrics, gauges).render, CONTENT_TYPE)
    try:
        address = await port.listen(config.metrics_host, config.metrics_port)
    except OSError as error:
        host = f"{config.metrics_host}:{config.metrics_port}"
        raise ListenError(f"cannot listen for metrics on {host}: {error.strerror or error}") from None
    logger.info("metrics on %s", address)
    return port


def provide_state(gauges: Gauges, state: State) -> None:
    """Says who is asked. None of it is kept up to date meanwhile, so it costs nothing until somebody looks."""
    config, detector, boundary, streams = state.config, state.detector, state.boundary, state.streams
    certificates, gate, audit = state.certificates, state.gate, state.audit
    gauges.provide(names.SERVING, lambda: float(state.health.is_serving))
    gauges.provide(names.IN_FLIGHT, lambda: boundary.in_flight)
    gauges.provide(names.CALLS_FREE, lambda: boundary.free_places)
    gauges.provide(names.CONNECTIONS, lambda: count_connections(config.metrics_port))
    gauges.provide(names.STREAMS, lambda: streams.open)
    gauges.provide(names.STREAMS_FREE, lambda: max(0, config.streams - streams.open))
    gauges.provide(names.WORKERS, lambda: detector.plan.workers)
    gauges.provide(names.WORKERS_FREE, lambda: detector.free_workers)
    gauges.provide(names.QUEUE_DEPTH, lambda: detector.waiting)
    gauges.provide(names.QUEUE_PLACES, lambda: config.queue)
    gauges.provide(names.MODEL_INFO, lambda: describe_models(detector.registry))
    gauges.provide(names.ALARM, lambda: {("models",): float(detector.registry.needs_person())})
    gauges.provide(names.MODEL_CHANGES, lambda: describe_changes(state.activator))
    gauges.provide(names.SHADOW_IMAGES, lambda: describe_shadows(detector.registry, detector.shadows))
    gauges.provide(
        names.SHADOW_DIFFERENCE,
        lambda: {label(one): detector.shadows.report_on(one).mean_difference for one in detector.registry.shadows},
    )
    gauges.provide(
        names.SHADOW_MEDIAN,
        lambda: {label(one): detector.shadows.report_on(one).median_ms / 1000 for one in detector.registry.shadows},
    )
    gauges.provide(names.SERVER_INFO, lambda: {(__version__,): 1.0})
    gauges.provide(names.LOG_DROPPED, count_dropped_lines)
    gauges.provide(names.LOG_SUPPRESSED, count_suppressed_lines)
    if certificates is not None:
        gauges.provide(names.CERTIFICATE_EXPIRY, lambda: describe_ends(certificates))
        gauges.provide(names.ALARM, lambda: {("certificates",): float(bool(certificates.alarm))})
    if gate is not None:
        gauges.provide(names.TOKEN_EXPIRY, lambda: describe_tokens(gate))
        gauges.provide(names.ALARM, lambda: {("access",): float(gate.needs_person())})
    if audit is not None:
        gauges.provide(names.AUDIT_BACKLOG, lambda: audit.backlog)
        gauges.provide(names.AUDIT_LOST, lambda: audit.lost)
        gauges.provide(names.ALARM, lambda: {("audit",): float(audit.needs_person())})


def describe_models(registry: ModelRegistry) -> dict[Labels, float]:
    """A series for each model; none before they are loaded."""
    found: dict[Labels, float] = {}
    for channel, served in registry.channels:
        model = served.model
        spec, is_default = model.spec, "true" if model is registry.default else "false"
        labels = (spec.name, spec.version, model.digest, model.options.precision, model.runtime, is_default, channel)
        found[labels] = 1.0
    return found


def describe_changes(activator: Activator) -> dict[Labels, float]:
    """How many there were. What has not been yet is there from the start, so that its first time shows as a rise."""
    found: dict[Labels, float] = {(action, "ok"): 0.0 for action in ACTIONS}
    found.update(activator.counts.copy())
    return found


def describe_shadows(registry: ModelRegistry, shadows: Shadows) -> dict[Labels, float]:
    """What became of the images for each shadow."""
    found: dict[Labels, float] = {}
    for served in registry.shadows:
        report, labels = shadows.report_on(served), label(served)
        found[*labels, "same"] = report.agreed
        found[*labels, "other"] = report.images - report.agreed
        found[*labels, "dropped"], found[*labels, "failed"] = report.dropped, report.failed
    return found


def label(served: Served) -> Labels:
    """Name and version."""
    return served.model.spec.name, served.release.version


def describe_ends(certificates: Certificates) -> dict[Labels, float]:
    """When each certificate ends, in seconds since 1970."""
    return {(one.role, one.subject): one.not_after for one in certificates.describe()}


def describe_tokens(gate: Gate) -> dict[Labels, float]:
    """When each client's token expires, in seconds since 1970; those that do not are left out."""
    ends: dict[Labels, float] = {}
    for entry in gate.entries:
        if entry.expires is not None:
            ends[entry.name,] = min(entry.expires_at, ends.get((entry.name,), entry.expires_at))
    return ends
