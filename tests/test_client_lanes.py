"""predict_many on several servers: shared out, and carried on when one of them goes or comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from client import Prediction, StrokeClient
from client._address import parse_address
from client.stream.servers import ServerCount
from tests.client_fakes import FakeServer, RecordingServicer, make_response, serve, wait_for
from tests.client_kinds import KINDS, ClientKind, expect_labels, make_images


@pytest.fixture
def servers() -> Iterator[list[FakeServer]]:
    """Two servers that take 1 ms for an image, so that a run lasts long enough to be shared out."""

    def judge(request):
        threading.Event().wait(0.001)
        return make_response(request)

    with serve() as first, serve() as second:
        first.servicer.judge = second.servicer.judge = judge
        yield [first, second]


@pytest.fixture(params=KINDS)
def both(request: pytest.FixtureRequest, servers: list[FakeServer]) -> ClientKind:
    """Either client of the two servers."""
    return KINDS[request.param](",".join(server.target for server in servers))


def test_images_are_shared_out(servers: list[FakeServer], both: ClientKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server of the list judges a fair part of the run, and each image is judged once."""
    monkeypatch.setattr("client.stream.run._FIRST_SHARE_SECONDS", 0.1)

    results = both.predict_many(make_images(900))

    assert [result.label for result in results] == expect_labels(900)
    counts = [len(server.servicer.requests) for server in servers]
    assert sum(counts) == 900
    assert min(counts) > 200


def test_server_that_stops_is_not_noticed(servers: list[FakeServer], both: ClientKind) -> None:
    """What it did not answer goes to the other one, and no image is lost or doubled in the results."""

    def stop(result: Prediction) -> None:
        if result.index == 60:
            servers[0].stop()

    results = both.predict_many(make_images(300), stop=stop)

    assert [result.label for result in results] == expect_labels(300)
    assert [result.index for result in results] == list(range(300))


def test_server_that_comes_back_gets_its_part(
    servers: list[FakeServer], both: ClientKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run outlives a restart, and the restarted server works again within the run."""
    monkeypatch.setattr("client.stream.run._FIRST_SHARE_SECONDS", 0.1)
    monkeypatch.setattr("client.stream.run._SHARE_SECONDS", 0.1)
    restarted: list[FakeServer] = []

    def restart(result: Prediction) -> bool:
        if result.index == 50:
            servers[0].stop()
            restarted.append(FakeServer(RecordingServicer(), servers[0].port))
        return bool(restarted) and len(restarted[0].servicer.requests) > 100

    try:
        results = both.predict_many(make_images(20_000), stop=restart)
    finally:
        restarted[0].stop()

    assert [result.index for result in results] == list(range(len(results)))
    assert len(results) < 20_000


def test_server_that_is_not_ready_gets_nothing(servers: list[FakeServer], both: ClientKind) -> None:
    """A server that says NOT_SERVING is left out."""
    servers[0].set_serving(False)

    assert len(both.predict_many(make_images(50))) == 50
    assert servers[0].servicer.requests == []


@pytest.mark.parametrize(
    ("target", "lanes"),
    [
        ("127.0.0.1:50051", 1),
        ("unix:/run/stroke.sock", 1),
        ("127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", 3),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", 2),
        ("dns:///127.0.0.1:50051", 1),
        ("dns:///no-such-host.invalid:50051", 1),
    ],
)
def test_one_stream_for_each_server(target: str, lanes: int) -> None:
    """A run has as many streams as the address has servers, and one at least."""
    with StrokeClient(target) as client:
        assert client._count_lanes() == lanes


def test_name_is_looked_up_when_the_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """dns:/// means as many servers as the name has addresses just then."""
    answers = [(2, 1, 6, "", (f"10.0.0.{number}", 50051)) for number in (1, 2, 3)]
    with StrokeClient("dns:///boxes:50051") as client:
        monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: answers)
        assert client._count_lanes() == 3


def test_servers_are_looked_up_again_beside_the_run() -> None:
    """Nobody waits for a name service: what is told is what was found last."""
    may_answer, answered = threading.Event(), threading.Event()

    def look_up() -> int:
        may_answer.wait(20)
        answered.set()
        return 3

    count = ServerCount(look_up)
    assert [count(), count()] == [0, 0]
    may_answer.set()
    assert answered.wait(20)
    wait_for(lambda: count() == 3)


@pytest.mark.parametrize(
    ("target", "may_grow"), [("dns:///boxes", True), ("box", False), ("a,b", False), ("unix:/run/s", False)]
)
def test_only_a_name_for_several_servers_is_looked_up_again(target: str, may_grow: bool) -> None:
    assert parse_address(target).may_grow is may_grow
