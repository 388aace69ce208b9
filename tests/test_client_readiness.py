"""wait_until_ready of both clients: what it waits for, and when it gives up."""

from __future__ import annotations

import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2

from client import AuthenticationError, HealthStatus, ServerUnavailableError, StrokeClientError
from client._core import Readiness
from tests.client_fakes import FakeServer, serve
from tests.client_kinds import ClientKind


def test_it_waits_for_serving(server: FakeServer, either: ClientKind) -> None:
    """It returns when the service's health turns to SERVING, not before."""
    server.set_serving(False)
    done = threading.Event()
    waiter = threading.Thread(target=lambda: (either.call("wait_until_ready", 10), done.set()))
    waiter.start()
    assert not done.wait(0.2)

    server.set_serving(True)

    assert done.wait(60)
    waiter.join()


def test_it_waits_for_the_server_to_start(server: FakeServer, either: ClientKind) -> None:
    """It may be called before the server listens; without a server it says that there is none."""
    server.stop()
    with pytest.raises(ServerUnavailableError, match="is it running"):
        either.call("wait_until_ready", 0.2)
    with serve(port=server.port):
        either.call("wait_until_ready", 10)


def test_it_gives_up(server: FakeServer, either: ClientKind) -> None:
    """A server that does not become ready is an error that says so."""
    server.set_serving(False)
    started = time.monotonic()

    with pytest.raises(ServerUnavailableError, match=r"not ready after 0\.2 s") as caught:
        either.call("wait_until_ready", 0.2)

    assert caught.value.reason == "SERVER_NOT_READY"
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_endless_waits_are_refused(either: ClientKind, timeout: float) -> None:
    """The wait has an end: a finite number of seconds."""
    with pytest.raises(ValueError, match="finite"):
        either.call("wait_until_ready", timeout)


@pytest.mark.parametrize("state", ["SERVING", "NOT_SERVING", "UNKNOWN"])
def test_health_is_what_the_server_says(server: FakeServer, either: ClientKind, state: str) -> None:
    """check_health() returns the state of the service, without waiting."""
    server.health.set("stroke.v1.StrokeService", health_pb2.HealthCheckResponse.ServingStatus.Value(state))

    assert either.call("check_health") == state


def make_error(code: grpc.StatusCode) -> StrokeClientError:
    kind = AuthenticationError if code is grpc.StatusCode.UNAUTHENTICATED else ServerUnavailableError
    return kind("as the server said", "REASON", code.name)


def test_pauses_grow_but_stay_short() -> None:
    """The checks begin close together, for a server that is almost ready, and settle at four a second."""
    readiness = Readiness("here:50051", 60)

    pauses = [readiness.judge(HealthStatus.NOT_SERVING) for _ in range(20)]

    assert pauses[0] == 0.02
    assert pauses == sorted(pauses)
    assert pauses[-1] == 0.25
    assert readiness.judge(HealthStatus.SERVING) is None


def test_one_check_does_not_take_the_whole_time() -> None:
    """A server that hangs may be replaced by one that does not: a check has 2 s, or what is left."""
    assert Readiness("here:50051", 60).check_timeout == 2.0
    assert 0 < Readiness("here:50051", 0.5).check_timeout <= 0.5


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_only_what_may_pass_is_waited_for(code: grpc.StatusCode) -> None:
    """Errors that waiting does not change are raised at once, the others are asked again."""
    passing = {"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "NOT_FOUND"}
    readiness = Readiness("here:50051", 60)

    if code.name in passing:
        assert readiness.judge(make_error(code)) == 0.02
    else:
        with pytest.raises(StrokeClientError, match="as the server said"):
            readiness.judge(make_error(code))
