"""Health watches: nothing that changes is missed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from server.api import health
from server.api.health import Health


def test_watch_sees_the_end_that_comes_while_a_status_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that takes its time over SERVING is still told NOT_SERVING before the watch ends."""

    async def read_name(call: Any) -> str:
        return ""

    monkeypatch.setattr(health, "read_name", read_name)
    monkeypatch.setattr(health, "Call", lambda context, inbox: SimpleNamespace(source="ipv4:1.2.3.4:5"))
    service = Health("stroke.v1.StrokeService", SimpleNamespace())  # type: ignore[arg-type]
    service.set_serving()
    written = []

    async def write(message: bytes) -> None:
        if not written:
            service.end()
        written.append(HealthCheckResponse.FromString(message).status)

    asyncio.run(service._watch(None, SimpleNamespace(write=write)))

    assert written == [HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING]
