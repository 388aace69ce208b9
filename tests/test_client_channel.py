"""The connection: several servers, sockets, and what survives a firewall; all on the wire."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from client import KeepAliveConfig, RetryConfig, ServerUnavailableError, StrokeClient
from client._channel import channel_options
from client._config import MIN_PING_SECONDS
from server.config import ServerConfig
from server.lifecycle import ports
from server.lifecycle.app import Application
from tests.client_fakes import FakeServer, RecordingServicer, serve, wait_for
from tests.fakes import encode, make_slice, run_server
from tests.wire import open_wire

pytestmark = pytest.mark.timed

IMAGE = encode(make_slice())

PINGS_UNTIL_THROWN_OUT = 4
"""Of an idle connection, at a server that permits none."""


def count_calls(server: FakeServer) -> int:
    return len(server.servicer.requests)


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def run_application(config: ServerConfig) -> Iterator[None]:
    """Runs the real server in this process, where a test can change its constants."""
    application = Application(config)
    with ThreadPoolExecutor(1) as pool:
        exit_code = pool.submit(application.run)
        try:
            yield
        finally:
            application.stop()
        assert exit_code.result(30) == 0


def test_calls_take_turns() -> None:
    """Two addresses: each server gets every second call."""
    with serve() as first, serve() as second, StrokeClient(f"{first.target},{second.target}") as client:
        wait_for(lambda: client.predict(b"image") and count_calls(first) and count_calls(second))
        before = count_calls(first), count_calls(second)
        for _ in range(20):
            client.predict(b"image")

        assert (count_calls(first) - before[0], count_calls(second) - before[1]) == (10, 10)


def test_unhealthy_server_gets_no_calls_until_it_is_well() -> None:
    """A box that says NOT_SERVING, as it does while it loads or stops, is left out; no call fails meanwhile."""
    with serve() as first, serve() as second, StrokeClient(f"{first.target},{second.target}") as client:
        wait_for(lambda: client.predict(b"image") and count_calls(first) and count_calls(second))
        first.set_serving(False)

        def is_left_out() -> bool:
            before = count_calls(first)
            for _ in range(6):
                client.predict(b"image")
            return count_calls(first) == before

        wait_for(is_left_out)
        before = count_calls(first)
        first.set_serving(True)
        wait_for(lambda: client.predict(b"image") and count_calls(first) > before)


def test_no_server_is_ready() -> None:
    """All say NOT_SERVING: it is said that they are there and not ready."""
    with (
        serve() as first,
        serve() as second,
        StrokeClient(f"{first.target},{second.target}", retry=RetryConfig(max_attempts=1)) as client,
    ):
        first.set_serving(False)
        second.set_serving(False)
        with pytest.raises(ServerUnavailableError, match="ready") as caught:
            client.predict(b"image")

    assert caught.value.reason == "SERVER_NOT_READY"


def test_killed_server_process_loses_no_call(tiny_models: Path) -> None:
    """One of two real servers is killed under load: every call is answered, by the other one."""
    with run_server(tiny_models) as first, run_server(tiny_models) as second:
        with StrokeClient(f"{first.address},{second.address}") as client, ThreadPoolExecutor(4) as pool:
            client.wait_until_ready()
            answered: list[str] = []

            def send() -> None:
                for _ in range(50):
                    answered.append(client.predict(IMAGE).label)

            sent = [pool.submit(send) for _ in range(4)]
            wait_for(lambda: len(answered) >= 20)
            first.process.kill()
            for future in sent:
                future.result(60)

        assert len(answered) == 200
        assert second.process.poll() is None


def test_one_address_of_a_list_may_be_dead_from_the_start() -> None:
    """The calls go to the one that answers."""
    with serve() as server, StrokeClient(f"127.0.0.1:1,{server.target}") as client:
        for _ in range(4):
            client.predict(b"image")

    assert count_calls(server) == 4


@pytest.mark.parametrize("form", ["{}", "dns:///{}", "ipv4:{}", "{0},{0}"])
def test_forms_of_addresses_reach_the_server(form: str) -> None:
    """Each documented form connects."""
    with serve() as server, StrokeClient(form.format(server.target)) as client:
        client.predict(b"image")


def test_servers_of_a_list_are_called_by_a_name() -> None:
    """Not by the list itself, which strict servers refuse as an HTTP authority."""
    with StrokeClient("localhost:1,127.0.0.1:2") as client:
        assert dict(channel_options(client._config))["grpc.default_authority"] == "localhost"


def test_socket_of_this_machine(tmp_path: Path) -> None:
    """``unix:/path`` works, with a token, which does not leave the machine."""
    servicer = RecordingServicer()
    path = f"unix:{tmp_path}/stroke.sock"
    with serve(servicer, address=path), StrokeClient(path, token="open-sesame") as client:
        client.predict(b"image")

    assert servicer.metadata[0]["authorization"] == "Bearer open-sesame"


def test_socket_that_is_not_there(tmp_path: Path) -> None:
    """The message names the socket."""
    with (
        StrokeClient(f"unix:{tmp_path}/none.sock", retry=RetryConfig(max_attempts=1)) as client,
        pytest.raises(ServerUnavailableError, match=r"no socket unix:.*none\.sock") as caught,
    ):
        client.predict(b"image")

    assert caught.value.reason == "SERVER_UNREACHABLE"


def test_proxy_of_the_environment_is_not_used(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of patients do not go through the proxy for web pages."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with StrokeClient(server.target, retry=RetryConfig(max_attempts=1)) as client:
        client.predict(b"image")


def test_idle_client_is_neither_thrown_out_nor_fooled(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server lets an idle client ping; when a firewall forgets the connection, the pings find out and the call
    that waits is answered on a new one."""
    monkeypatch.setattr("client._config.MIN_PING_SECONDS", 1.0)
    monkeypatch.setattr(ports, "CLIENT_PING_MS", 500)  # the same ratio, faster
    port = find_port()
    keep_alive = KeepAliveConfig(interval=1.0, timeout=0.5)
    with (
        run_application(ServerConfig(models=tiny_models, port=port)),
        open_wire(port) as wire,
        StrokeClient(wire.target, keep_alive=keep_alive) as client,
    ):
        client.wait_until_ready()
        client.predict(IMAGE)
        connections, pings = wire.connections, wire.pings
        wait_for(lambda: wire.pings > pings + PINGS_UNTIL_THROWN_OUT)
        assert (wire.connections, wire.goaways) == (connections, [])

        wire.go_silent()
        started = time.monotonic()
        client.predict(IMAGE, timeout=10)

        assert time.monotonic() - started < 8  # interval, timeout, the pause of a retry, and what a busy machine adds
        assert wire.connections == connections + 1


def test_server_permits_the_shortest_interval_with_room_to_spare() -> None:
    """What the client may be set to is what the server allows, twice over."""
    assert 2 * ports.CLIENT_PING_MS <= 1000 * MIN_PING_SECONDS
    assert KeepAliveConfig().interval >= MIN_PING_SECONDS


def test_ping_without_permission_is_what_the_permission_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was never told to allow pings ends the connection: the tests above can fail."""
    monkeypatch.setattr("client._config.MIN_PING_SECONDS", 1.0)
    keep_alive = KeepAliveConfig(interval=1.0, timeout=0.5)
    with serve() as server, open_wire(server.port) as wire, StrokeClient(wire.target, keep_alive=keep_alive) as client:
        client.predict(b"image")
        wait_for(lambda: wire.goaways)

    assert wire.goaways == [b"too_many_pings"]
