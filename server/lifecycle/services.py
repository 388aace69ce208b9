"""Services beside stroke.v1. They are loaded when they are first called: most callers never ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from server.admission.boundary import Boundary
from server.admission.inbox import Inbox
from server.admission.judge import Judge
from server.api.health import HEALTH_SERVICE, Health
from server.api.rpc.boundary import RpcBoundary
from server.api.rpc.stream import StreamPlaces
from server.api.service import SERVICE_NAME
from server.config import ServerConfig
from server.core.detector import Detector
from server.core.outcomes import Journal

if TYPE_CHECKING:
    from server.security.gate import Gate

INFERENCE_SERVICE = "inference.GRPCInferenceService"

CHECKS = 512
"""Health checks of the inference protocol that are open at the same time."""


class LateService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A service whose handlers are made at its first call."""

    def __init__(self, name: str, make: Callable[[], Sequence[grpc.GenericRpcHandler]]) -> None:
        """Makes nothing yet.

        Args:
            name: the service's full name.
            make: makes the handlers; in the event loop.
        """
        self._prefix = f"/{name}/"
        self._make = make
        self._handlers: Sequence[grpc.GenericRpcHandler] | None = None

    def service(self, handler_call_details: Any) -> Any:
        """See ``grpc.GenericRpcHandler``: what serves a call; None: nothing of this service."""
        if not handler_call_details.method.startswith(self._prefix):
            return None
        if self._handlers is None:
            self._handlers = self._make()
        found = (handler.service(handler_call_details) for handler in self._handlers)
        return next((handler for handler in found if handler is not None), None)


def make_inference_service(
    config: ServerConfig,
    detector: Detector,
    judge: Judge,
    streams: StreamPlaces,
    health: Health,
    rpc: RpcBoundary,
    checks: RpcBoundary,
) -> grpc.GenericRpcHandler:
    """The Open Inference Protocol over gRPC. Its health checks have a boundary of their own, so that calls and checks
    do not take each other's places."""

    def make() -> Sequence[grpc.GenericRpcHandler]:
        from server.oip.inference import Inference
        from server.oip.servicer import InferenceServicer

        inference = Inference(detector.registry, judge)
        servicer = InferenceServicer(detector, inference, streams, config, is_serving=lambda: health.is_serving)
        return servicer.make_handlers(rpc, checks)

    return LateService(INFERENCE_SERVICE, make)


def make_check_boundary(journal: Journal, gate: Gate | None, inbox: Inbox) -> RpcBoundary:
    """What goes around health checks of the inference protocol."""
    return RpcBoundary(Boundary(CHECKS, journal, gate), inbox)


def make_reflection(streams: StreamPlaces, rpc: RpcBoundary) -> tuple[grpc.GenericRpcHandler, ...]:
    """Tells what services and messages there are."""
    from proto.inference_pb2 import DESCRIPTOR
    from server.oip.reflection import Reflection

    inference = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    return Reflection([SERVICE_NAME, inference, HEALTH_SERVICE], streams).make_handlers(rpc)
