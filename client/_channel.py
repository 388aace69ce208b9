"""The connection: channel options, and the one place where a unary call is made and its failure translated."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from client._errors import StrokeClientError, error_from_closed, error_from_rpc

SERVICE = "stroke.v1.StrokeService"

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE, "method": method} for method in ("Predict", "GetModel", "ListModels")],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # CANCELLED is what gRPC sends for calls that cross the GOAWAY of a server that stops gracefully
                # (github.com/grpc/grpc/issues/24237). All calls are pure, so sending twice does no harm.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # Half of the tokens may go before retries pause: enough for the restart of a server under 32 concurrent calls,
    # little enough that a dead server is not flooded.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}

_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # gRPC's own limit of 4 MiB is below the images that a server may be set to accept; it knows its limits best.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's defaults (1 s to 120 s) are for the internet; on a local network a restarted server is back within seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5000),  # in fact the time that one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 2000),
    # The server stands in the same house: images of patients do not go through the proxy that http_proxy names.
    ("grpc.enable_http_proxy", 0),
)


def make_channel(target: str) -> grpc.Channel:
    """Returns a channel to ``target``; it connects at the first call, and the caller closes it."""
    return grpc.insecure_channel(target, options=_OPTIONS)


def call_unary(
    method: Callable[..., _Response], request: _Request, *, timeout: float, target: str, request_id: str | None = None
) -> _Response:
    """Makes one unary call.

    Args:
        method: a callable of the stub.
        request: its message.
        timeout: deadline in seconds, retries included.
        target: address of the server, for messages.
        request_id: id of the request, for the error.

    Raises:
        StrokeClientError: whatever goes wrong.
    """
    failure: StrokeClientError
    try:
        return method(request, timeout=timeout)
    except grpc.RpcError as error:
        failure = error_from_rpc(error, target=target, request_id=request_id)
    except ValueError:  # how grpc says that the channel is closed
        failure = error_from_closed(target)
    raise failure


def health_check(channel: grpc.Channel) -> Any:
    """Returns the callable of grpc.health.v1 ``Check``: service name in, ``SERVING`` and other states as int out.

    Written by hand because its messages have one field each and the package that holds them (grpcio-health-checking)
    is not worth a dependency: HealthCheckRequest {string service = 1}, HealthCheckResponse {enum status = 1}.
    """
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=_serialize_service,
        response_deserializer=_parse_health_status,
    )


HEALTH_SERVING = 1


def _serialize_service(service: str) -> bytes:
    name = service.encode("ascii")
    return bytes([0x0A, len(name)]) + name  # tag of field 1 (bytes), length below 128, content


def _parse_health_status(data: bytes) -> int:
    return data[1] if len(data) > 1 and data[0] == 0x08 else 0  # tag of field 1 (varint); absent is 0, UNKNOWN
