"""Who may call a real server: what its callers see of the gate, and that it is no matter of connections."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from client import AuthenticationError, OverloadedError, RetryConfig, StrokeClient, StrokeClientError
from client.cli.health import list_alarms
from client.cli.main import main
from proto import stroke_pb2
from server.config import ServerConfig
from server.lifecycle.app import Application, serve
from tests.access import token_of, write_private, write_tokens
from tests.certificates import CA, HOSPITAL, chain, issue_server, key, settings
from tests.fakes import ServerProcess, encode, make_slice, run_server, wait_until
from tests.scraping import find_free_port

IMAGE = encode(make_slice())
CLIENTS = {
    "ward": "",
    "other": "",
    "reader": "roles=read",
    "over": "expires=2020-01-01",
    "slow": "requests=1",
    "few": "images=1",
}
ONCE = RetryConfig(max_attempts=1)
ASK = "Ask the operator of the server."


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of tokens of the server."""
    return write_tokens(tmp_path_factory.mktemp("access") / "tokens", **CLIENTS)


@pytest.fixture(scope="module")
def probe_port() -> int:
    """Where the server answers health checks alone."""
    return find_free_port()


@pytest.fixture(scope="module")
def guarded(tiny_models: Path, tokens: Path, probe_port: int) -> Iterator[ServerProcess]:
    """A server process that wants tokens."""
    with run_server(tiny_models, "--tokens", str(tokens), "--probe-port", str(probe_port)) as server:
        yield server


def connect(server: ServerProcess, name: str) -> StrokeClient:
    """A client that does not come again by itself, so that refusals show."""
    return StrokeClient(server.address, token=token_of(name), retry=ONCE)


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        (None, "This server wants a token with each call."),
        ("guessed", "The server does not know this token."),
        (token_of("over"), "The token was good until 2020-01-01 (UTC)."),
        (token_of("reader"), "Your token is not for that: it lacks the role 'predict'."),
    ],
)
def test_command_line_says_why_it_is_not_let_in(
    token: str | None, sentence: str, guarded: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, and exit code 1; nothing is tried again, for it would not help."""
    (tmp_path / "scan.png").write_bytes(IMAGE)
    (tmp_path / "token").write_text(token or "")
    words = ["--token-file", str(tmp_path / "token")] if token else []

    assert main(["--server", guarded.address, *words, str(tmp_path / "scan.png")]) == 1

    assert capsys.readouterr().err == f"error: {sentence} {ASK}\n"


def test_those_with_a_token_are_served(guarded: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Calls, streams and models; those who may read see the models; health is for all; the log names the client."""
    with connect(guarded, "ward") as client:
        assert client.predict(IMAGE).label
        assert len(list(client.predict_many([IMAGE] * 40))) == 40
        assert client.list_models()
    with connect(guarded, "reader") as client:
        assert client.model_info()
    assert main(["health", "--server", guarded.address]) == 0
    wait_until(lambda: any("Predict id=" in line and "client=ward" in line for line in guarded.log))
    assert not any(token_of("") in line for line in guarded.log)


def test_client_at_its_limits_is_told_when_to_come_again(guarded: ServerProcess) -> None:
    """And one that has none goes on undisturbed meanwhile."""
    refusals: list[OverloadedError] = []
    with connect(guarded, "slow") as slow, connect(guarded, "other") as other:
        for _ in range(10):
            try:
                slow.predict(IMAGE)
            except OverloadedError as error:
                refusals.append(error)
            assert other.predict(IMAGE).label

    assert {(error.reason, error.code) for error in refusals} == {("LIMIT_REQUESTS", "RESOURCE_EXHAUSTED")}
    assert str(refusals[0]) == "You may make 1 requests a second: come again in a moment."
    assert 0 < (refusals[0].retry_after or 0) <= 1


def test_images_in_flight_are_limited_whatever_the_connections(guarded: ServerProcess) -> None:
    """A call whose message does not come takes the place of the client, not of others; streams are slowed down."""
    metadata = (("authorization", f"Bearer {token_of('few')}"),)
    go_on = threading.Event()

    def send() -> Iterator[bytes]:
        go_on.wait(20)
        yield stroke_pb2.PredictRequest(image=IMAGE).SerializeToString()

    with grpc.insecure_channel(guarded.address) as channel:
        first = channel.stream_unary("/stroke.v1.StrokeService/Predict").future(send(), metadata=metadata)
        with connect(guarded, "few") as second, connect(guarded, "other") as other:

            def is_refused() -> bool:
                try:
                    second.predict(IMAGE)
                except OverloadedError as error:
                    return error.reason == "LIMIT_IMAGES"
                return False

            wait_until(is_refused)  # until the first has arrived
            assert other.predict(IMAGE).label
            go_on.set()
            assert first.result(20)
            assert len(list(second.predict_many([IMAGE] * 40))) == 40


def revoke_under_load(
    client: StrokeClient, neighbour: StrokeClient, change: Callable[[], object]
) -> tuple[StrokeClientError, StrokeClientError]:
    """Changes a file while one client has a stream and another one calls; returns how the first's stream and its next
    call end. The other one must notice nothing."""
    failures: list[StrokeClientError] = []
    done = threading.Event()

    def go_on_calling() -> None:
        while not done.is_set():
            try:
                neighbour.predict(IMAGE)
            except StrokeClientError as error:
                failures.append(error)

    def send() -> Iterator[bytes]:
        while not done.wait(0.01):
            yield IMAGE

    def read() -> None:
        for index, _ in enumerate(client.predict_many(send())):
            if index == 5:
                change()

    thread = threading.Thread(target=go_on_calling)
    with client, neighbour:
        thread.start()
        try:
            with pytest.raises(StrokeClientError) as ended:
                read()
            with pytest.raises(StrokeClientError) as after:
                client.predict(IMAGE)
        finally:
            done.set()
            thread.join()
    assert failures == []
    return ended.value, after.value


def test_token_that_is_revoked_under_load_is_refused(guarded: ServerProcess, tokens: Path) -> None:
    """From the next call on, on the same connection; its open stream ends with the reason, and nobody else notices."""
    rest = {name: words for name, words in CLIENTS.items() if name != "ward"}

    ended, after = revoke_under_load(
        connect(guarded, "ward"), connect(guarded, "other"), lambda: write_tokens(tokens, **rest)
    )

    write_tokens(tokens, **CLIENTS)
    assert (type(ended), ended.reason) == (AuthenticationError, "TOKEN_REVOKED")
    assert str(ended) == f"The token is good no longer. {ASK}"
    assert (type(after), after.reason) == (AuthenticationError, "TOKEN_WRONG")


def test_bad_file_is_reported_and_the_old_one_holds(guarded: ServerProcess, tokens: Path) -> None:
    """SIGHUP reads it at once; then the right one again. Health has an alarm meanwhile."""
    write_private(tokens, ["ward"])
    guarded.process.send_signal(signal.SIGHUP)
    wait_until(lambda: any("not taken, what was read before holds on" in line for line in guarded.log))

    with connect(guarded, "other") as client:
        assert client.predict(IMAGE).label
        assert list_alarms(client, time.monotonic() + 10) == ("access",)
        write_tokens(tokens, **CLIENTS)
        wait_until(lambda: list_alarms(client, time.monotonic() + 10) == ())


def test_health_may_want_a_token_too(tiny_models: Path, tokens: Path, tmp_path: Path) -> None:
    """Then it is for all who have one, whatever they may."""
    address = f"unix:{tmp_path / 'socket'}"
    application = Application(ServerConfig(models=tiny_models, host=address, tokens=tokens, health="token"))
    thread = threading.Thread(target=application.run)
    thread.start()
    try:
        with StrokeClient(address, token=token_of("reader")) as client:
            client.wait_until_ready()
        with StrokeClient(address) as client, pytest.raises(AuthenticationError) as refused:
            client.check_health()
    finally:
        application.stop()
        thread.join()
    assert refused.value.reason == "TOKEN_MISSING"


def test_port_for_probes_tells_nobody_of_alarms(guarded: ServerProcess, probe_port: int) -> None:
    """It asks for no token: who wants to know when nobody writes down what they do learns nothing there."""
    check = HealthCheckRequest(service="stroke.alarm.access")
    with grpc.insecure_channel(guarded.address) as channel:
        assert HealthStub(channel).Check(check, timeout=10).status == HealthCheckResponse.SERVING
    with grpc.insecure_channel(f"127.0.0.1:{probe_port}") as channel:
        assert HealthStub(channel).Check(HealthCheckRequest(), timeout=10).status == HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            HealthStub(channel).Check(check, timeout=10)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_server_does_not_start_with_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the file and the mistake, and exit code 1."""
    path = write_private(tmp_path / "tokens", ["ward"])

    assert serve(ServerConfig(models=tmp_path, tokens=path)) == 1

    assert capsys.readouterr().err == (
        f"server: error: {path}: line 1: after the name comes the SHA-256 of the token, 64 of 0-9 and a-f, and never "
        "the token itself\n"
    )


def test_certificate_that_is_taken_off_the_list_under_load_is_refused(tiny_models: Path, tmp_path: Path) -> None:
    """The list says who of the authority's clients may call: from then on, on the connections that there are."""
    own = {name: HOSPITAL.issue_cert(f"{name}.hospital.example", common_name=name) for name in ("ct-1", "ct-2", "ct-3")}
    allowed = write_private(tmp_path / "allowed", ["# stations", "ct-1", "dns:ct-2.hospital.example"])
    server_pair = issue_server()
    (tmp_path / "ca.pem").write_bytes(CA)
    (tmp_path / "server.pem").write_bytes(chain(server_pair))
    (tmp_path / "server.key").touch(0o600)
    (tmp_path / "server.key").write_bytes(key(server_pair))
    files = {"tls-cert": "server.pem", "tls-key": "server.key", "tls-client-ca": "ca.pem", "allow-clients": "allowed"}
    words = [word for flag, name in files.items() for word in (f"--{flag}", str(tmp_path / name))]

    with run_server(tiny_models, *words) as server:

        def connect_as(name: str) -> StrokeClient:
            return StrokeClient(server.address, tls=settings(own[name]), retry=ONCE)

        with connect_as("ct-3") as stranger, pytest.raises(AuthenticationError) as refused:
            stranger.predict(IMAGE)
        ended, after = revoke_under_load(
            connect_as("ct-1"), connect_as("ct-2"), lambda: write_private(allowed, ["dns:ct-2.hospital.example"])
        )

    assert refused.value.reason == ended.reason == after.reason == "CLIENT_NOT_ALLOWED"
    assert str(ended) == f"The client of this certificate is not on the server's list. {ASK}"
    assert any("client=cn:ct-1" in line for line in server.log)
