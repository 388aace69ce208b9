"""Repetitions, deadlines and metadata of the client, as a recording server sees them on the wire."""

from __future__ import annotations

import time
from itertools import pairwise

import grpc
import pytest

from client import (
    AuthenticationError,
    RetryConfig,
    ServerUnavailableError,
    StrokeClient,
)
from tests.client_fakes import FakeServer, RefusalError

FAST = RetryConfig(max_attempts=5, initial_backoff=0.01, max_backoff=0.02)


def refuse(code: grpc.StatusCode):
    def judge(request):
        raise RefusalError(code, "", "m")

    return judge


def list_attempts(server: FakeServer) -> list[int]:
    """For each request that arrived: which repetition it was; 0 is the first try."""
    ids = [request.id for request in server.servicer.requests]
    return [ids[:position].count(request_id) for position, request_id in enumerate(ids)]


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_dropped_call_is_tried_as_often_as_configured(server: FakeServer, code: grpc.StatusCode, attempts: int) -> None:
    """UNAVAILABLE and CANCELLED are repeated, up to ``max_attempts`` tries in all."""
    server.servicer.judge = refuse(code)
    retry = RetryConfig(max_attempts=attempts, initial_backoff=0.01, max_backoff=0.02)
    with StrokeClient(server.target, retry=retry) as client, pytest.raises(ServerUnavailableError):
        client.predict(b"image")

    assert list_attempts(server) == list(range(attempts))


@pytest.mark.parametrize(
    "code", [c for c in grpc.StatusCode if c.name not in ("OK", "UNAVAILABLE", "CANCELLED")], ids=lambda code: code.name
)
def test_nothing_else_is_repeated(server: FakeServer, code: grpc.StatusCode) -> None:
    """An answer of the server is an answer; so is RESOURCE_EXHAUSTED for which it states neither reason nor hint."""
    server.servicer.judge = refuse(code)
    with StrokeClient(server.target, retry=FAST) as client, pytest.raises(Exception, match="m"):
        client.predict(b"image")

    assert list_attempts(server) == [0]


def test_repeated_call_brings_the_same_request(server: FakeServer) -> None:
    """Every try has the same bytes and id, so that the server's log shows one request."""
    server.servicer.judge = refuse(grpc.StatusCode.UNAVAILABLE)
    with StrokeClient(server.target, retry=FAST) as client, pytest.raises(ServerUnavailableError) as caught:
        client.predict(b"image", request_id="r-1")

    assert {request.id for request in server.servicer.requests} == {"r-1"}
    assert caught.value.request_id == "r-1"


def test_pauses_grow_from_try_to_try(server: FakeServer) -> None:
    """The pauses double from the first one to the longest, spread by a fifth."""
    moments: list[float] = []

    def judge(request):
        moments.append(time.monotonic())
        raise RefusalError(grpc.StatusCode.UNAVAILABLE)

    server.servicer.judge = judge
    retry = RetryConfig(max_attempts=4, initial_backoff=0.1, max_backoff=0.25, backoff_multiplier=2)
    with StrokeClient(server.target, retry=retry) as client, pytest.raises(ServerUnavailableError):
        client.predict(b"image")

    pauses = [later - earlier for earlier, later in pairwise(moments)]
    for pause, planned in zip(pauses, (0.1, 0.2, 0.25), strict=True):
        assert 0.75 * planned < pause < 1.25 * planned + 0.15  # and what a busy machine adds


def test_timeout_covers_all_tries(server: FakeServer) -> None:
    """A call takes no longer than its timeout, however often it is tried, and each try gets what is left. What kept it
    waiting is the error."""
    server.servicer.judge = refuse(grpc.StatusCode.UNAVAILABLE)
    retry = RetryConfig(max_attempts=5, initial_backoff=0.3, max_backoff=0.3, backoff_multiplier=1)
    started = time.monotonic()
    with StrokeClient(server.target, retry=retry) as client, pytest.raises(ServerUnavailableError):
        client.predict(b"image", timeout=0.8)

    assert 0.3 < time.monotonic() - started < 5
    left = server.servicer.time_remaining
    assert len(left) == 5
    assert left[0] <= 0.9  # gRPC rounds up on the wire
    assert all(later < earlier - 0.03 for earlier, later in pairwise(left))


def test_deadline_of_the_client_reaches_the_server(server: FakeServer) -> None:
    """The server knows how long the caller waits: the client's timeout, or the call's own."""
    with StrokeClient(server.target, timeout=7) as client:
        client.predict(b"image")
        client.predict(b"image", timeout=3)

    first, second = server.servicer.time_remaining
    assert 5 < first < 7.1  # gRPC rounds up on the wire
    assert 1 < second < 3.1


def test_dead_server_is_not_flooded(server: FakeServer) -> None:
    """With half of the tokens spent nothing is repeated until answers are good again."""
    server.servicer.judge = refuse(grpc.StatusCode.UNAVAILABLE)
    retry = RetryConfig(max_attempts=5, initial_backoff=0.01, max_backoff=0.01, throttle_tokens=4)
    with StrokeClient(server.target, retry=retry) as client:
        for _ in range(3):
            with pytest.raises(ServerUnavailableError):
                client.predict(b"image")

    assert list_attempts(server) == [0, 1, 0, 0]


def test_token_is_read_before_each_call(server: FakeServer) -> None:
    """A token that changes is sent as it is then, with streams as with single calls."""
    tokens = iter(["first", "second", "third"])
    with StrokeClient(server.target, token=lambda: next(tokens)) as client:
        client.predict(b"image")
        client.predict(b"image")
        assert len(list(client.predict_many([b"image"]))) == 1

    sent = [metadata["authorization"] for metadata in server.servicer.metadata]
    assert sent == ["Bearer first", "Bearer second", "Bearer third"]


def test_no_token_no_header(server: FakeServer) -> None:
    """Nothing is said of authorisation where nothing was configured."""
    with StrokeClient(server.target) as client:
        client.predict(b"image")

    assert "authorization" not in server.servicer.metadata[0]


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (lambda: (_ for _ in ()).throw(KeyError("s3cret")), "KeyError"),
        (lambda: "s3cret with spaces", "spaces"),
        (lambda: "s3cret\n", "printable"),
        (lambda: "", "empty"),
        (lambda: b"s3cret", "bytes"),
    ],
)
def test_token_that_cannot_be_had_ends_the_call(server: FakeServer, token, words: str) -> None:
    """Nothing is sent without it; the message says what is wrong and never what the token is."""
    with StrokeClient(server.target, token=token) as client, pytest.raises(AuthenticationError, match=words) as caught:
        client.predict(b"image")

    assert caught.value.reason == "TOKEN_UNREADABLE"
    assert "s3cret" not in str(caught.value)
    assert server.servicer.requests == []
