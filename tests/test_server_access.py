"""Who may call a real server: what its callers see of the gate, and that it is no matter of connections."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from client import (
    AuthenticationError,
    InvalidImageError,
    OverloadedError,
    RetryConfig,
    StrokeClient,
    StrokeClientError,
)
from client.cli.main import main
from proto import stroke_pb2
from server.api.calls import Call, Inbox
from server.api.interceptors import REASON_KEY, CallBoundary, FairPlaces
from server.app import Application, serve, too_many_calls
from server.config import ServerConfig
from server.core.outcomes import Journal, Outcome
from server.security.gate import Gate
from tests.access import token_of, write_private, write_tokens
from tests.certificates import CA, chain, credentials, issue_client, issue_server, key
from tests.fakes import ServerProcess, encode, make_slice, run_server, wait_until

IMAGE = encode(make_slice())
CLIENTS = {
    "ward": "",
    "other": "",
    "reader": "roles=read",
    "over": "expires=2020-01-01",
    "slow": "requests=1",
    "few": "images=1",
}
ASK = "Ask the operator of the server."


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of tokens of the server."""
    return write_tokens(tmp_path_factory.mktemp("access") / "tokens", **CLIENTS)


@pytest.fixture(scope="module")
def guarded(tiny_models: Path, tokens: Path) -> Iterator[ServerProcess]:
    """A server process that wants tokens."""
    with run_server(tiny_models, "--tokens", str(tokens)) as server:
        yield server


def connect(server: ServerProcess, name: str) -> StrokeClient:
    """A client that does not come again by itself, so that refusals show."""
    return StrokeClient(server.address, token=token_of(name), retry=RetryConfig(max_attempts=1))


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


def test_token_that_is_revoked_under_load_is_refused(guarded: ServerProcess, tokens: Path) -> None:
    """From the next call on, on the same connection; its open stream ends with the reason, and nobody else notices."""
    failures: list[StrokeClientError] = []
    done = threading.Event()

    def go_on_calling() -> None:
        with connect(guarded, "other") as other:
            while not done.is_set():
                try:
                    other.predict(IMAGE)
                except StrokeClientError as error:
                    failures.append(error)

    def send() -> Iterator[bytes]:
        while not done.wait(0.01):
            yield IMAGE

    neighbour = threading.Thread(target=go_on_calling)
    neighbour.start()
    try:
        with connect(guarded, "ward") as client:
            with pytest.raises(AuthenticationError) as ended:  # noqa: PT012
                for index, result in enumerate(client.predict_many(send())):
                    assert not isinstance(result, InvalidImageError)
                    if index == 5:
                        write_tokens(tokens, **{name: words for name, words in CLIENTS.items() if name != "ward"})
            with pytest.raises(AuthenticationError) as refused:
                client.predict(IMAGE)
    finally:
        done.set()
        neighbour.join()
        write_tokens(tokens, **CLIENTS)

    assert (ended.value.reason, str(ended.value)) == ("TOKEN_REVOKED", f"The token is good no longer. {ASK}")
    assert refused.value.reason == "TOKEN_WRONG"
    assert failures == []


def test_bad_file_is_reported_and_the_old_one_holds(guarded: ServerProcess, tokens: Path) -> None:
    """SIGHUP reads it at once; then the right one again."""
    write_private(tokens, ["ward"])
    guarded.process.send_signal(signal.SIGHUP)
    wait_until(lambda: any("not taken, what was read before holds on" in line for line in guarded.log))

    with connect(guarded, "other") as client:
        assert client.predict(IMAGE).label
    write_tokens(tokens, **CLIENTS)


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


def test_server_does_not_start_with_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the file and the mistake, and exit code 1."""
    path = write_private(tmp_path / "tokens", ["ward"])

    assert serve(ServerConfig(models=tmp_path, tokens=path)) == 1

    assert capsys.readouterr().err == (
        f"server: error: {path}: line 1: after the name comes the SHA-256 of the token, 64 of 0-9 and a-f, and never "
        "the token itself\n"
    )


class Notes:
    """A recorder."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def test_certificate_is_looked_up_on_every_call(tmp_path: Path) -> None:
    """Its name is that of the caller; taken off the list, the client is refused on the connection that it has."""
    allowed = write_private(tmp_path / "allowed", ["station-3"])
    gate, notes = Gate(allowed=allowed), Notes()
    served: list[str] = []

    async def behave(call: Call) -> bytes:
        served.append(call.source)
        return b""

    async def ask(channel: grpc.aio.Channel) -> str:
        try:
            await channel.unary_unary("/s/GetModel")(b"", wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {dict(error.trailing_metadata() or ()).get(REASON_KEY)}"
        return "OK"

    async def steps() -> list[str]:
        boundary = CallBoundary(Inbox(1 << 20), FairPlaces(8, too_many_calls), Journal([notes]), gate)
        handler: Any = grpc.stream_unary_rpc_method_handler(boundary.wrap("GetModel", behave))
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"GetModel": handler}),))
        port = server.add_secure_port("127.0.0.1:0", credentials(issue_server(), asks=True))
        await server.start()
        own = issue_client()
        secrets = grpc.ssl_channel_credentials(CA, key(own), chain(own))
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", secrets) as channel:
            answers = [await ask(channel)]
            write_private(allowed, ["station-4"])
            await asyncio.to_thread(gate.reload)
            answers.append(await ask(channel))
        await server.stop(None)
        return answers

    assert asyncio.run(asyncio.wait_for(steps(), 30)) == ["OK", "PERMISSION_DENIED CLIENT_NOT_ALLOWED"]
    assert served == ["client email:station-3@hospital.example"]
    assert [(outcome.caller.name, outcome.reason) for outcome in notes.outcomes] == [
        ("station-3", ""),
        ("", "CLIENT_NOT_ALLOWED"),
    ]
