"""``grpc.health.v1``: the callable of its ``Check``, for the blocking and the asynchronous client.

Written by hand because its messages have one field each and the package that holds them (grpcio-health-checking) is
not worth a dependency: HealthCheckRequest {string service = 1}, HealthCheckResponse {enum status = 1}.
"""

from __future__ import annotations

from typing import Any

from ._types import HealthStatus

_STATUS = {
    0: HealthStatus.UNKNOWN,
    1: HealthStatus.SERVING,
    2: HealthStatus.NOT_SERVING,
    3: HealthStatus.SERVICE_UNKNOWN,
}


def health_check(channel: Any) -> Any:
    """Returns the callable: service name in, ``HealthStatus`` out."""
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=_serialize_service,
        response_deserializer=_parse_status,
    )


def _serialize_service(service: str) -> bytes:
    name = service.encode("ascii")
    return bytes([0x0A, len(name)]) + name  # tag of field 1 (bytes), length below 128, content


def _parse_status(data: bytes) -> HealthStatus:
    # Tag of field 1 (varint); an absent field is 0.
    number = data[1] if len(data) > 1 and data[0] == 0x08 else 0
    return _STATUS.get(number, HealthStatus.UNKNOWN)
