"""Health: watches miss nothing that changes, and alarms have names of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from server.api import health
from server.api.health import Health


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The services that callers ask for, one after the other."""
    names: list[str] = []

    async def read_name(call: Any) -> str:
        return names.pop(0)

    monkeypatch.setattr(health, "read_name", read_name)
    monkeypatch.setattr(health, "RpcCall", lambda context, method, inbox: SimpleNamespace(source="ipv4:1.2.3.4:5"))
    return names


@pytest.fixture
def service() -> Health:
    """That of a server which serves."""
    service = Health("stroke.v1.StrokeService", SimpleNamespace())  # type: ignore[arg-type]
    service.set_serving()
    return service


class Context:
    """gRPC's side of a call."""

    async def abort(self, code: grpc.StatusCode) -> None:
        raise LookupError(code.name)


def check(service: Health, alarms: dict[str, Callable[[], bool]]) -> str:
    """What a check is answered."""
    try:
        answer = asyncio.run(service._check(None, Context(), gate=None, alarms=alarms))
    except LookupError as error:
        return str(error)
    return HealthCheckResponse.ServingStatus.Name(HealthCheckResponse.FromString(answer).status)


def test_alarm_is_not_serving_until_it_is_mended_and_the_server_serves_all_the_while(
    names: list[str], service: Health
) -> None:
    """Each under its own name; it is looked up at the time of the check."""
    full = [True]
    alarms: dict[str, Callable[[], bool]] = {
        "stroke.alarm.audit": lambda: full[0],
        "stroke.alarm.access": lambda: False,
    }
    names.extend(["stroke.alarm.audit", "stroke.alarm.access", "", "stroke.v1.StrokeService"])
    assert [check(service, alarms) for _ in range(4)] == ["NOT_SERVING", "SERVING", "SERVING", "SERVING"]

    full[0] = False
    names.append("stroke.alarm.audit")
    assert check(service, alarms) == "SERVING"

    service.end()
    names.extend(["stroke.alarm.audit", ""])
    assert [check(service, alarms) for _ in range(2)] == ["SERVING", "NOT_SERVING"]


@pytest.mark.parametrize("name", ["stroke.alarm.certificates", "stroke.alarm.", "audit", "stroke.v2.StrokeService"])
def test_part_that_is_not_in_use_is_not_found(names: list[str], service: Health, name: str) -> None:
    """Like any other service that the server does not have."""
    names.append(name)

    assert check(service, {"stroke.alarm.audit": lambda: True}) == "NOT_FOUND"


def test_watch_sees_the_end_that_comes_while_a_status_is_written(names: list[str], service: Health) -> None:
    """A caller that takes its time over SERVING is still told NOT_SERVING before the watch ends."""
    names.append("")
    written = []

    async def write(message: bytes) -> None:
        if not written:
            service.end()
        written.append(HealthCheckResponse.FromString(message).status)

    asyncio.run(service._watch(None, SimpleNamespace(write=write)))

    assert written == [HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING]
