"""One name for several servers, whose addresses change: what a headless service of Kubernetes is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from client import RetryConfig, StrokeClient
from tests.client_fakes import FakeServer, RecordingServicer, serve, wait_for
from tests.client_kinds import KINDS, ClientKind
from tests.name_server import NameServer, name_server
from tests.scraping import find_free_port

pytestmark = pytest.mark.timed

HOSTS = ("127.0.0.21", "127.0.0.22", "127.0.0.23")
AGE_MS = 500


@pytest.fixture
def names() -> Iterator[NameServer]:
    with name_server() as server:
        yield server


@pytest.fixture
def boxes() -> Iterator[list[FakeServer]]:
    """Three servers on the same port of different addresses, whose connections end at an age."""
    port = find_free_port()
    options = (("grpc.max_connection_age_ms", AGE_MS), ("grpc.max_connection_age_grace_ms", 0))
    with ExitStack() as stack:
        yield [
            stack.enter_context(serve(RecordingServicer(), address=f"{host}:{port}", options=options)) for host in HOSTS
        ]


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, names: NameServer, boxes: list[FakeServer]) -> ClientKind:
    """Either client of the name."""
    return KINDS[request.param](f"dns://{names.address}/stroke:{boxes[0].port}")


def count_requests(boxes: list[FakeServer]) -> list[int]:
    return [len(box.servicer.requests) for box in boxes]


def test_servers_that_a_name_gets_later_get_their_share(
    client: ClientKind, names: NameServer, boxes: list[FakeServer]
) -> None:
    """The name is looked up again when a connection has reached its age, though nothing has failed."""
    names.addresses = list(HOSTS[:1])

    def grow(result: object) -> bool:
        names.addresses = list(HOSTS)
        return min(count_requests(boxes)) > 0

    results = client.predict_many(iter(lambda: b"stroke", None), stop=grow)

    assert [result.index for result in results] == list(range(len(results)))
    assert min(count_requests(boxes)) > 0


def test_servers_may_all_move_at_once(names: NameServer, boxes: list[FakeServer]) -> None:
    """A name is looked up as soon as its servers are gone: gRPC by itself waits until 30 s after the last time, longer
    than a call has."""

    names.addresses = [HOSTS[0]]
    with StrokeClient(f"dns://{names.address}/stroke:{boxes[0].port}", timeout=20) as client:
        client.predict(b"stroke")
        names.addresses = [HOSTS[1]]
        boxes[0].stop()
        client.predict(b"stroke")
        names.addresses = [HOSTS[2]]
        boxes[1].stop()
        client.predict(b"stroke")

    assert count_requests(boxes) == [1, 1, 1]


def test_calls_go_round_and_pass_by_who_is_not_well(names: NameServer, boxes: list[FakeServer]) -> None:
    """Of the addresses of a name; without a try that fails."""

    names.addresses = list(HOSTS)
    boxes[1].set_serving(False)
    target = f"dns://{names.address}/stroke:{boxes[0].port}"
    with StrokeClient(target, timeout=20, retry=RetryConfig(max_attempts=1)) as client:

        def is_shared() -> bool:
            client.predict(b"stroke")
            return count_requests(boxes)[0] > 3 and count_requests(boxes)[2] > 3

        wait_for(is_shared)

    assert count_requests(boxes)[1] == 0
