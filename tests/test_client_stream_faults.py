"""predict_many of both clients: streams that break, servers that restart, hang or refuse."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from client import (
    AuthenticationError,
    DeadlineExceededError,
    ImageTooLargeError,
    Prediction,
    PredictionFailure,
    ServerError,
    ServerUnavailableError,
)
from tests.client_fakes import BrokenStreamError, FakeServer, RecordingServicer, make_response, wait_for
from tests.client_kinds import KINDS, ClientKind, expect_labels, make_images

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away the pauses before new tries."""
    monkeypatch.setattr("client._retry.choose_pause", lambda error, backoff, hint_limit: 0.0)


@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.CANCELLED, None], ids=str)
@pytest.mark.parametrize("index", [0, 11, 29])
@pytest.mark.usefixtures("no_pause")
def test_broken_stream_loses_and_doubles_nothing(
    server: FakeServer, either: ClientKind, code: grpc.StatusCode | None, index: int
) -> None:
    """Images without an answer are sent again, with their ids, on a new stream; each has exactly one result."""
    images = make_images(30)
    server.servicer.raise_once(images[index], BrokenStreamError(code))

    results = either.predict_many(images)

    assert [result.label for result in results] == expect_labels(30)
    assert set(server.servicer.images) == set(images)
    assert len({request.id for request in server.servicer.requests}) == 30
    assert [result.request_id for result in results] == list(
        dict.fromkeys(request.id for request in server.servicer.requests)
    )
    assert server.servicer.ended_streams.count("broken") == 1


@pytest.mark.usefixtures("no_pause")
def test_stream_that_breaks_after_every_answer_is_finished(server: FakeServer, either: ClientKind) -> None:
    """As long as there is progress, the number of breaks is not limited."""
    seen: list[bytes] = []

    def judge(request):
        if request.image in seen:
            return make_response(request)
        seen.append(request.image)
        raise BrokenStreamError(UNAVAILABLE)

    server.servicer.judge = judge

    assert [result.label for result in either.predict_many(make_images(20))] == expect_labels(20)


def test_stream_that_only_breaks_is_given_up(server: FakeServer, either: ClientKind) -> None:
    """Without progress the run ends with the server's error when the time of an image is over."""

    def judge(request):
        raise BrokenStreamError(UNAVAILABLE, "draining")

    server.servicer.judge = judge

    started = time.monotonic()
    with pytest.raises(ServerUnavailableError, match="draining"):
        either.predict_many(make_images(5), timeout=1)

    assert 0.8 < time.monotonic() - started < 20
    assert len(server.servicer.ended_streams) > 1


def test_server_that_ends_the_stream_without_answers_is_an_error(server: FakeServer, either: ClientKind) -> None:
    """A stream that ends with OK and images left is tried again, then named."""

    def judge(request):
        raise BrokenStreamError(None)

    server.servicer.judge = judge

    with pytest.raises(ServerError) as caught:
        either.predict_many([b"x"], timeout=1.5)
    assert caught.value.reason == "STREAM_ENDED"


def test_restarted_server_is_not_noticed(server: FakeServer, either: ClientKind) -> None:
    """A server that stops in the middle and comes back on its port answers the rest."""
    restarted: list[FakeServer] = []

    def restart(result: Prediction) -> None:
        if result.index == 50:
            server.stop()
            restarted.append(FakeServer(RecordingServicer(), server.port))

    try:
        results = either.predict_many(make_images(200), stop=restart)
        assert [result.label for result in results] == expect_labels(200)
    finally:
        restarted[0].stop()


def test_ended_idle_stream_is_opened_again(server: FakeServer, either: ClientKind) -> None:
    """A stream that the server ends while nothing is outstanding is no failure: the next image gets a new one."""

    def judge(request):
        response = make_response(request)
        if request.image == b"last":
            threading.Thread(target=end_stream).start()
        return response

    def end_stream() -> None:
        server.stop()
        restarted.append(FakeServer(RecordingServicer(), server.port))

    def images() -> Iterator[bytes]:
        yield b"last"
        wait_for(lambda: restarted)
        yield b"stroke"

    restarted: list[FakeServer] = []
    server.servicer.judge = judge

    try:
        assert [result.label for result in either.predict_many(images(), in_flight=1)] == ["normal", "stroke"]
    finally:
        restarted[0].stop()


@pytest.mark.parametrize("kind", KINDS)
def test_unreachable_server_ends_the_run(kind: str) -> None:
    """No server is one error, not one failure per image."""
    with pytest.raises(ServerUnavailableError, match="is it running"):
        KINDS[kind]("127.0.0.1:1", timeout=0.5).predict_many(make_images(5))


def test_refused_stream_ends_the_run(server: FakeServer, either: ClientKind) -> None:
    """A status that sending again cannot change is raised at once."""

    def judge(request):
        raise BrokenStreamError(grpc.StatusCode.UNAUTHENTICATED)

    server.servicer.judge = judge

    with pytest.raises(AuthenticationError):
        either.predict_many(make_images(5))

    assert server.servicer.ended_streams == ["broken"]


def test_oversized_message_fails_alone(either: ClientKind) -> None:
    """gRPC ends a stream over one too large message: that image fails, the others are answered."""
    huge = b"x" * (5 * 2**20)

    results = either.predict_many([b"stroke", huge, b"stroke", b"stroke"])

    assert [type(result) for result in results] == [Prediction, PredictionFailure, Prediction, Prediction]
    assert isinstance(results[1].error, ImageTooLargeError)


def test_hanging_server_ends_the_run(server: FakeServer, either: ClientKind) -> None:
    """Two images in a row without an answer: the run ends instead of waiting for every image."""
    server.servicer.judge = server.servicer.hang
    results: list[PredictionFailure] = []
    started = time.monotonic()

    with pytest.raises(DeadlineExceededError, match=r"within 0\.2 s"):
        either.predict_many(make_images(100), timeout=0.2, into=results)

    assert time.monotonic() - started < 10  # and not 100 times 0.2 s
    assert [type(result.error) for result in results] == [DeadlineExceededError]
