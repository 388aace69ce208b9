"""Errors of the client: every gRPC code has one, and nothing of gRPC shows."""

from __future__ import annotations

import pickle
import re
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

import client as client_package
from client import RetryConfig, StrokeClient, StrokeClientError
from client._errors import error_from_rpc, error_from_status, may_pass
from proto import stroke_pb2_grpc
from tests.client_fakes import RecordingServicer, RefusalError, serve

EXPECTED = {
    "CANCELLED": "ServerUnavailableError",
    "UNKNOWN": "ServerError",
    "INVALID_ARGUMENT": "InvalidRequestError",
    "DEADLINE_EXCEEDED": "DeadlineExceededError",
    "NOT_FOUND": "ModelNotFoundError",
    "ALREADY_EXISTS": "ServerError",
    "PERMISSION_DENIED": "AuthenticationError",
    "RESOURCE_EXHAUSTED": "OverloadedError",
    "FAILED_PRECONDITION": "ServerError",
    "ABORTED": "ServerError",
    "OUT_OF_RANGE": "InvalidRequestError",
    "UNIMPLEMENTED": "ServerError",
    "INTERNAL": "ServerError",
    "UNAVAILABLE": "ServerUnavailableError",
    "DATA_LOSS": "IntegrityError",
    "UNAUTHENTICATED": "AuthenticationError",
}
CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.fixture(scope="module")
def server():
    with serve() as running:
        yield running


def test_table_is_total() -> None:
    """There is an expectation for each code that gRPC knows."""
    assert {code.name for code in CODES} == set(EXPECTED)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_every_code_becomes_its_error(server, code: grpc.StatusCode) -> None:
    """A call that fails with this code raises the documented error, with reason, code and id."""

    def judge(request):
        raise RefusalError(code, "SOME_REASON", "What happened and what to do.")

    server.servicer.judge = judge
    # Neither the client nor a channel of its own tries again.
    with (
        grpc.insecure_channel(server.target) as channel,
        StrokeClient(channel=channel, timeout=5, retry=RetryConfig(max_attempts=1)) as client,
        pytest.raises(StrokeClientError) as caught,
    ):
        client.predict(b"x", request_id="r-3")

    error = caught.value
    assert type(error).__name__ == EXPECTED[code.name]
    assert (error.code, error.reason, error.request_id) == (code.name, "SOME_REASON", "r-3")
    assert str(error) == "What happened and what to do."


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_status_without_a_reason_is_explained(code: grpc.StatusCode) -> None:
    """A status that gRPC made gets a sentence that names the server, and a reason of the client's own."""
    error = error_from_status(code.value[0], None, "jargon", target="box:1")

    assert type(error).__name__ == EXPECTED[code.name]
    assert "box:1" in str(error)
    assert error.reason == error.reason.upper()
    assert error.code == code.name


@pytest.mark.parametrize(
    ("number", "reason", "details", "kind", "made_reason"),
    [
        (3, "IMAGE_UNDECODABLE", "m", "InvalidImageError", "IMAGE_UNDECODABLE"),
        (3, "IMAGE_TOO_LARGE", "m", "ImageTooLargeError", "IMAGE_TOO_LARGE"),
        (3, "REQUEST_ID_INVALID", "m", "InvalidRequestError", "REQUEST_ID_INVALID"),
        (8, None, "SERVER: Received message larger than max (5 vs. 4)", "ImageTooLargeError", "IMAGE_TOO_LARGE"),
        (8, None, "Received message larger than max (5 vs. 4)", "ImageTooLargeError", "IMAGE_TOO_LARGE"),
        (8, None, "CLIENT: Sent message larger than max (5 vs. 4)", "ImageTooLargeError", "IMAGE_TOO_LARGE"),
        (8, None, "CLIENT: Received message larger than max (5 vs. 4)", "ServerError", "ANSWER_TOO_LARGE"),
        (8, "OVERLOADED", "m", "OverloadedError", "OVERLOADED"),
        (14, None, "failed to connect to all addresses; last error: x", "ServerUnavailableError", "SERVER_UNREACHABLE"),
        (14, None, "connections to all backends failing; x", "ServerUnavailableError", "SERVER_UNREACHABLE"),
        (14, None, "failed to connect …: tcp handshaker shutdown", "ServerUnavailableError", "SERVER_UNREACHABLE"),
        (14, None, "failed to connect …: unix:/s error: No such file or directory", "ServerUnavailableError",
         "SERVER_UNREACHABLE"),
        (14, None, "all backends failing: backend unhealthy", "ServerUnavailableError", "SERVER_NOT_READY"),
        (14, None, "failed to connect (Failed parsing HTTP/2)", "ServerUnavailableError", "NOT_A_GRPC_SERVER"),
        (14, None, "failed to connect …: Socket closed", "ServerUnavailableError", "CONNECTION_FAILED"),
        (14, None, "Socket closed", "ServerUnavailableError", "SERVER_UNAVAILABLE"),
        (14, None, "errors resolving nowhere:1: x", "ServerUnavailableError", "HOST_UNKNOWN"),
        (13, None, "Failed to create channel to 'dns://x': not valid", "ServerUnavailableError", "HOST_UNKNOWN"),
        (13, None, "Illegal status code from resolver; x", "ServerUnavailableError", "HOST_UNKNOWN"),
        (14, None, "Failed to create XdsClient: x", "ServerUnavailableError", "HOST_UNKNOWN"),
        (14, None, "failed to connect (… an http1.x server)", "ServerUnavailableError", "NOT_A_GRPC_SERVER"),
        (13, None, "Internal error from Core", "ServerUnavailableError", "SERVER_UNAVAILABLE"),
        (13, "INTERNAL", "Internal error from Core", "ServerError", "INTERNAL"),
        (14, "STOPPING", "The server stops.", "ServerUnavailableError", "STOPPING"),
        (99, "NEW", "m", "ServerError", "NEW"),
    ],
)  # fmt: skip
def test_finer_distinctions(number: int, reason: str | None, details: str, kind: str, made_reason: str) -> None:
    """Images, requests, overload, size and connection faults are told apart."""
    error = error_from_status(number, reason, details, target="box:1")

    assert (type(error).__name__, error.reason) == (kind, made_reason)


def refuse_size(server_limit: int = -1, *, send: int = -1, receive: int = -1, size: int = 5000) -> StrokeClientError:
    """Returns the error of a prediction through a channel with these limits, in bytes; -1 is none."""
    grpc_server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", server_limit)])
    stroke_pb2_grpc.add_StrokeServiceServicer_to_server(RecordingServicer(), grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    limits = [("grpc.max_send_message_length", send), ("grpc.max_receive_message_length", receive)]
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}", options=limits) as channel,
        StrokeClient(f"127.0.0.1:{port}", channel=channel) as client,
        pytest.raises(StrokeClientError) as caught,
    ):
        client.predict(b"i" * size)
    grpc_server.stop(None).wait()
    return caught.value


def test_limit_of_the_server_is_named() -> None:
    """A message that the server's gRPC turns away: whose limit, how much, and how it is raised."""
    error = refuse_size(server_limit=1000)

    assert (type(error), error.reason) == (client_package.ImageTooLargeError, "IMAGE_TOO_LARGE")
    assert "the server at 127.0.0.1" in str(error)
    assert "limit 1000" in str(error)
    assert "--max-image-bytes" in str(error)


def test_limits_of_a_channel_are_named() -> None:
    """A channel that the caller made has limits of its own: to send, and to receive."""
    sent, received = refuse_size(send=1000), refuse_size(receive=10)

    assert (type(sent), sent.reason) == (client_package.ImageTooLargeError, "IMAGE_TOO_LARGE")
    assert "grpc.max_send_message_length" in str(sent)
    assert (type(received), received.reason) == (client_package.ServerError, "ANSWER_TOO_LARGE")
    assert "grpc.max_receive_message_length" in str(received)


def test_only_what_passes_by_itself_may_pass() -> None:
    """A certificate that is not accepted is UNAVAILABLE to gRPC, and no better a second later."""
    cases = [
        (client_package.ServerUnavailableError, "UNAVAILABLE", True),
        (client_package.ServerUnavailableError, "CANCELLED", True),
        (client_package.OverloadedError, "RESOURCE_EXHAUSTED", True),
        (client_package.ImageTooLargeError, "RESOURCE_EXHAUSTED", False),
        (client_package.AuthenticationError, "UNAVAILABLE", False),
        (client_package.ServerError, "INTERNAL", False),
        (client_package.ImageReadError, None, False),
    ]
    assert [may_pass(kind("m", "R", code)) for kind, code, _ in cases] == [expected for *_, expected in cases]


def test_reasons_of_the_probe_are_in_its_table() -> None:
    """Every reason that its package makes is documented, and every documented one is made."""
    import client.tls.probe as probe

    sources = [path.read_text() for path in Path(probe.__file__ or "").parent.glob("*.py")]
    pattern = r"(?:TLS_[A-Z_]+|NOT_A_GRPC_SERVER)"
    made = {reason for source in sources for reason in re.findall(rf'"({pattern})"', source)}

    assert made == set(re.findall(pattern, probe.__doc__ or ""))
    assert len(made) == 11


def test_bare_rpc_error_is_a_server_error() -> None:
    """An RpcError without a status, as an interceptor may raise it, is mapped, too."""
    assert error_from_rpc(grpc.RpcError(), target="box:1").code == "UNKNOWN"


def test_no_frame_of_grpc_is_shown(server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback holds neither cause nor context of gRPC, unless STROKE_TRACEBACK=1 asks for it."""

    def judge(request):
        raise RefusalError(grpc.StatusCode.INTERNAL, "INTERNAL", "m")

    server.servicer.judge = judge
    monkeypatch.delenv("STROKE_TRACEBACK", raising=False)
    with StrokeClient(server.target) as client:
        with pytest.raises(StrokeClientError) as caught:
            client.predict(b"x")
        with pytest.raises(StrokeClientError) as caught_in_stream:
            raise next(client.predict_many([b"x"])).error
        monkeypatch.setenv("STROKE_TRACEBACK", "1")
        with pytest.raises(StrokeClientError) as caught_in_full:
            client.predict(b"x")

    for error in (caught.value, caught_in_stream.value):
        assert error.__cause__ is None
        assert error.__context__ is None
        assert "RpcError" not in "".join(traceback.format_exception(error))
    assert isinstance(caught_in_full.value.__cause__, grpc.RpcError)


def test_errors_survive_pickling() -> None:
    """An error can cross to another process with all it says."""
    error = client_package.InvalidImageError("m", "IMAGE_EMPTY", "INVALID_ARGUMENT", "r-4")
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is client_package.InvalidImageError
    assert (str(copy), copy.reason, copy.code, copy.request_id) == ("m", "IMAGE_EMPTY", "INVALID_ARGUMENT", "r-4")


def test_tree_in_the_docstring_is_complete() -> None:
    """Every error is drawn in the module's docstring and is a StrokeClientError."""
    import client._errors as module

    for name in client_package.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(client_package, name), StrokeClientError)
            assert name in module.__doc__
