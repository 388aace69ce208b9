"""Services beside stroke.v1. They are loaded when they are first called: most callers never ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from server.admission.core import Core
from server.api.health import HEALTH_SERVICE
from server.api.rpc.boundary import RpcBoundary
from server.api.service import SERVICE_NAME

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


@dataclass(frozen=True)
class Parts:
    """What such a service needs of a server."""

    core: Core
    rpc: RpcBoundary
    checks: RpcBoundary
    """Around health checks: calls and checks do not take each other's places."""


def list_services(parts: Parts) -> tuple[grpc.GenericRpcHandler, ...]:
    """All of them that are wanted."""
    inference = LateService(INFERENCE_SERVICE, lambda: make_inference_service(parts))
    return (inference, *(make_reflection(parts) if parts.core.config.reflection else ()))


def make_inference_service(parts: Parts) -> Sequence[grpc.GenericRpcHandler]:
    """The Open Inference Protocol over gRPC."""
    from server.oip.inference import Inference
    from server.oip.servicer import InferenceServicer

    core = parts.core
    inference = Inference(core.detector.registry, core.judge, core.config.most_message_bytes)
    servicer = InferenceServicer(core.detector, inference, core.streams, core.config, is_serving=core.is_serving)
    return servicer.make_handlers(parts.rpc, parts.checks)


def make_reflection(parts: Parts) -> Sequence[grpc.GenericRpcHandler]:
    """Tells what services and messages there are."""
    from proto.inference_pb2 import DESCRIPTOR
    from server.oip.reflection import Reflection

    inference = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    return Reflection([SERVICE_NAME, inference, HEALTH_SERVICE], parts.core.streams).make_handlers(parts.rpc)
