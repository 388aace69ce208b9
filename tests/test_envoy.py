"""Several real servers behind Envoy, for callers that know one address and repeat nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.faults.callers import Caller, LibraryCaller, StubCaller
from bench.faults.checker import check
from bench.faults.golden import Golden, add_served
from bench.faults.history import History
from bench.faults.load import HeldLoad
from client import Prediction, StrokeClient, StrokeClientError
from proto import stroke_pb2_grpc
from tests.access import write_private
from tests.certificates import CA, HOSPITAL, chain, issue_client, issue_server, key, settings
from tests.client_fakes import wait_for
from tests.envoy import count, list_well, place_envoy, read_config, run_envoy, validate
from tests.fakes import ServerProcess, encode, make_slice
from tests.name_server import NameServer, name_server
from tests.replicas import replace, run_replicas
from tests.scraping import find_free_port

pytestmark = pytest.mark.timed

OLD = ("127.0.0.51", "127.0.0.52", "127.0.0.53")
NEW = ("127.0.0.61", "127.0.0.62", "127.0.0.63")
IMAGES = [encode(make_slice(seed=seed)) for seed in range(3)]
RATE, DEADLINE = 10.0, 30.0


class SecureCaller(StubCaller):
    """A stub with a client certificate."""

    def __init__(self, name: str, history: History, address: str) -> None:
        Caller.__init__(self, name, history)
        own = issue_client()
        credentials = grpc.ssl_channel_credentials(CA, key(own), chain(own))
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self._channel = grpc.secure_channel(address, credentials, options)
        self._stub = stroke_pb2_grpc.StrokeServiceStub(self._channel)


class SecureClient(LibraryCaller):
    """The client, with a certificate of its own."""

    def __init__(self, name: str, history: History, address: str) -> None:
        Caller.__init__(self, name, history)
        self._client = StrokeClient(address, tls=settings(issue_client()))


@dataclass
class Place:
    """Where servers and Envoy are."""

    address: str
    """Of Envoy."""

    config: Any
    folder: Path
    port: int
    """Of the servers."""

    names: NameServer
    golden: Golden
    history: History
    models: Path
    flags: tuple[str, ...]

    def start(self, stack: ExitStack, hosts: tuple[str, ...]) -> list[ServerProcess]:
        """Runs servers until the stack ends."""
        return stack.enter_context(run_replicas(self.models, hosts, *self.flags, port=self.port))

    def load(self, kind: type[SecureCaller] | type[SecureClient]) -> HeldLoad:
        """Single calls of some callers, at a rate."""
        callers = [kind(f"caller{number}", self.history, self.address) for number in range(4)]
        return HeldLoad(callers, IMAGES, rate=RATE, deadline=DEADLINE, seed=1)


@pytest.fixture
def envoy_place(tiny_models: Path, tmp_path: Path) -> Iterator[Place]:
    """With certificates of all."""
    for name, own in (("server", issue_server(HOSPITAL, "strokeserve", "127.0.0.1")), ("envoy", issue_client())):
        for ending, data in (("pem", chain(own)), ("key", key(own))):
            write_private(tmp_path / f"{name}.{ending}", data.decode().splitlines())
    (tmp_path / "ca.pem").write_bytes(CA)
    golden, history = Golden(), History()
    for model in add_served(golden, ["--models", str(tiny_models)]):
        history.declare(model.spec.version, model.digest)
    for image in IMAGES:
        golden.add_image(image)
    config = read_config(tmp_path)
    port = find_free_port()
    flags = ["--tls-cert", "server.pem", "--tls-key", "server.key", "--tls-client-ca", "ca.pem"]
    flags[1::2] = [str(tmp_path / name) for name in flags[1::2]]
    with name_server() as names:
        address = place_envoy(config, names.address, port)
        yield Place(address, config, tmp_path, port, names, golden, history, tiny_models, tuple(flags))


def test_file_is_as_envoy_wants_it(envoy_place: Place) -> None:
    """Its own check finds nothing wrong, and nothing that is to be removed from it soon."""
    said = validate(read_config(envoy_place.folder), envoy_place.folder)

    assert said.strip().endswith("OK")
    assert "warning" not in said


def test_servers_behind_envoy_are_replaced(envoy_place: Place) -> None:
    """Single calls that nobody repeats but Envoy, and a stream of our client, which opens another one."""
    place = envoy_place
    with ExitStack() as stack:
        old, new = place.start(stack, OLD), place.start(stack, NEW)
        place.names.addresses = list(OLD)
        admin = stack.enter_context(run_envoy(place.config, place.folder))
        load = stack.enter_context(place.load(SecureCaller))
        client = stack.enter_context(StrokeClient(place.address, tls=settings(issue_client())))
        is_over = threading.Event()
        stack.callback(is_over.set)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        stream = pool.submit(list, client.predict_many(iter(lambda: None if is_over.is_set() else IMAGES[0], None)))
        assert load.wait_answers(20)
        replace(place.names, old, new, lambda: wait_for(lambda: list_well(admin) == set(place.names.addresses)))
        assert load.wait_answers(20)
        is_over.set()
        results = stream.result(60)
        load.stop()

    assert load.count_failures() == {}
    assert check(place.history.list_entries(), place.golden) == []
    assert [result.index for result in results if isinstance(result, Prediction)] == list(range(len(results)))


def test_call_of_a_server_that_dies_is_answered_by_another(envoy_place: Place) -> None:
    """Envoy sends it again, since judging twice does no harm, and leaves the dead server out; what it had only half
    passed on it does not send again, but the client does."""
    place = envoy_place
    with ExitStack() as stack:
        first, *_ = place.start(stack, OLD)
        place.names.addresses = list(OLD)
        admin = stack.enter_context(run_envoy(place.config, place.folder))
        wait_for(lambda: count(admin, "cluster.strokeserve.membership_healthy") == 3)
        load = stack.enter_context(place.load(SecureClient))
        assert load.wait_answers(20)
        first.process.kill()
        wait_for(lambda: count(admin, "cluster.strokeserve.membership_healthy") == 2)
        assert load.wait_answers(20)
        load.stop()

    assert load.count_failures() == {}
    assert check(place.history.list_entries(), place.golden) == []


def test_caller_without_a_certificate_does_not_reach_the_servers(envoy_place: Place) -> None:
    place = envoy_place
    with ExitStack() as stack:
        place.start(stack, OLD[:1])
        place.names.addresses = list(OLD[:1])
        stack.enter_context(run_envoy(place.config, place.folder))
        with (
            StrokeClient(place.address, tls=settings(), timeout=20) as client,
            pytest.raises(StrokeClientError) as refusal,
        ):
            client.predict(IMAGES[0])

    assert refusal.value.reason == "TLS_CLIENT_CERTIFICATE_MISSING"
