"""predict_many: order, bounded memory, bad images, broken and hanging streams, early ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from client import (
    AuthenticationError,
    ClientClosedError,
    DeadlineExceededError,
    ImageTooLargeError,
    IntegrityError,
    InvalidImageError,
    OverloadedError,
    Prediction,
    PredictionFailure,
    ServerError,
    ServerUnavailableError,
    StrokeClient,
)
from tests.client_fakes import (
    BrokenStreamError,
    FakeServer,
    RecordingServicer,
    RefusalError,
    make_response,
    wait_for,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def make_images(count: int) -> list[bytes]:
    return [b"%s %d" % (b"stroke" if index % 3 == 0 else b"other", index) for index in range(count)]


def expect_labels(count: int) -> list[str]:
    return ["stroke" if index % 3 == 0 else "normal" for index in range(count)]


def raise_once(server: FakeServer, image: bytes, error: Exception) -> None:
    """Makes the server raise ``error`` when it sees ``image`` for the first time."""
    pending = [error]

    def judge(request):
        if request.image == image and pending:
            raise pending.pop()
        return make_response(request)

    server.servicer.judge = judge


def test_results_come_in_order_with_their_sources(server: FakeServer, client: StrokeClient, tmp_path: Path) -> None:
    """Each image gets one prediction that names it; one stream, which ends by half-close, serves them all."""
    paths = []
    for index, image in enumerate(make_images(30)):
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(image)

    results = list(client.predict_many(paths, model="m", version="2"))

    assert [result.source for result in results] == paths
    assert [result.label for result in results] == expect_labels(30)
    assert {(result.model, result.version) for result in results} == {("m", "2")}
    assert all(request.image_sha256 for request in server.servicer.requests)
    assert len({request.id for request in server.servicer.requests}) == 30
    wait_for(lambda: server.servicer.ended_streams == ["half-closed"])


def test_nothing_to_judge_makes_no_call(server: FakeServer, client: StrokeClient) -> None:
    """An empty iterable gives no results and opens no stream."""
    assert list(client.predict_many([])) == []
    assert server.servicer.ended_streams == []


@pytest.mark.parametrize("in_flight", [1, 8])
def test_images_are_read_no_further_than_in_flight(server: FakeServer, client: StrokeClient, in_flight: int) -> None:
    """Of 500 images never more than in_flight are read and without a result, and the window is used."""
    taken = done = furthest = 0

    def images() -> Iterator[bytes]:
        nonlocal taken, furthest
        for image in make_images(500):
            taken += 1
            furthest = max(furthest, taken - done)
            yield image

    for result in client.predict_many(images(), in_flight=in_flight):
        assert isinstance(result, Prediction)
        done += 1

    assert done == 500
    assert furthest == in_flight
    assert len(server.servicer.requests) == 500


def test_bytes_are_not_kept_in_results(client: StrokeClient) -> None:
    """A result names bytes without holding them, so that a list of results stays small."""
    (result,) = client.predict_many([b"stroke"])

    assert result.source == "<bytes>"


def test_bad_images_do_not_end_the_run(server: FakeServer, client: StrokeClient, tmp_path: Path) -> None:
    """An unreadable file and a refused image are failures in their places; the others are answered."""

    def judge(request):
        if request.image == b"text":
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The file is text.")
        return make_response(request)

    server.servicer.judge = judge
    missing = tmp_path / "missing.png"

    results = list(client.predict_many([b"stroke", missing, b"", b"text", b"stroke"]))

    assert [type(result) for result in results] == [Prediction, *[PredictionFailure] * 3, Prediction]
    assert results[1].source == missing
    reasons = ["IMAGE_UNREADABLE", "IMAGE_EMPTY", "IMAGE_UNDECODABLE"]
    assert [result.error.reason for result in results[1:4]] == reasons
    assert isinstance(results[3].error, InvalidImageError)
    assert str(results[3].error) == "The file is text."
    assert results[3].error.request_id == server.servicer.requests[1].id


@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.CANCELLED, None], ids=str)
@pytest.mark.parametrize("index", [0, 11, 29])
def test_broken_stream_loses_and_doubles_nothing(
    server: FakeServer, client: StrokeClient, code: grpc.StatusCode | None, index: int
) -> None:
    """Images without an answer are sent again, with their ids, on a new stream; each has exactly one result."""
    images = make_images(30)
    raise_once(server, images[index], BrokenStreamError(code))

    results = list(client.predict_many(images))

    assert [result.label for result in results] == expect_labels(30)
    assert set(server.servicer.images) == set(images)
    assert len({request.id for request in server.servicer.requests}) == 30
    assert [result.request_id for result in results] == list(
        dict.fromkeys(request.id for request in server.servicer.requests)
    )
    assert server.servicer.ended_streams.count("broken") == 1


def test_stream_that_breaks_after_every_answer_is_finished(
    server: FakeServer, client: StrokeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as there is progress, the number of breaks is not limited."""
    monkeypatch.setattr("client._stream.choose_pause", lambda tries: 0.0)
    seen: list[bytes] = []

    def judge(request):
        if request.image in seen:
            return make_response(request)
        seen.append(request.image)
        raise BrokenStreamError(UNAVAILABLE)

    server.servicer.judge = judge

    assert [result.label for result in client.predict_many(make_images(20))] == expect_labels(20)


def test_stream_that_only_breaks_is_given_up(
    server: FakeServer, client: StrokeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without progress the run ends with the server's error after a bounded number of tries."""
    pauses: list[int] = []
    monkeypatch.setattr("client._stream.choose_pause", lambda tries: pauses.append(tries) or 0.0)

    def judge(request):
        raise BrokenStreamError(UNAVAILABLE, "draining")

    server.servicer.judge = judge

    with pytest.raises(ServerUnavailableError, match="draining"):
        list(client.predict_many(make_images(5)))

    assert pauses == [1, 2, 3]


def test_restarted_server_is_not_noticed(server: FakeServer, client: StrokeClient) -> None:
    """A server that stops in the middle and comes back on its port answers the rest."""
    images = make_images(200)
    restarted: list[FakeServer] = []

    def results() -> Iterator[str]:
        for index, result in enumerate(client.predict_many(images)):
            if index == 50:
                server.stop()
                restarted.append(FakeServer(RecordingServicer(), server.port))
            yield result.label

    try:
        assert list(results()) == expect_labels(200)
    finally:
        restarted[0].stop()


def test_unreachable_server_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is one error, not one failure per image."""
    monkeypatch.setattr("client._stream.choose_pause", lambda tries: 0.0)
    with StrokeClient("127.0.0.1:1") as client, pytest.raises(ServerUnavailableError, match="is it running"):
        list(client.predict_many(make_images(5)))


def test_refused_stream_ends_the_run(server: FakeServer, client: StrokeClient) -> None:
    """A status that sending again cannot change is raised at once."""

    def judge(request):
        raise BrokenStreamError(grpc.StatusCode.UNAUTHENTICATED)

    server.servicer.judge = judge

    with pytest.raises(AuthenticationError):
        list(client.predict_many(make_images(5)))

    assert server.servicer.ended_streams == ["broken"]


def test_oversized_message_fails_alone(client: StrokeClient) -> None:
    """gRPC ends a stream over one too large message: that image fails, the others are answered."""
    huge = b"x" * (5 * 2**20)

    results = list(client.predict_many([b"stroke", huge, b"stroke", b"stroke"]))

    assert [type(result) for result in results] == [Prediction, PredictionFailure, Prediction, Prediction]
    assert isinstance(results[1].error, ImageTooLargeError)


def test_busy_server_is_asked_again_for_that_image(
    server: FakeServer, client: StrokeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image refused for overload is sent again on the same stream, and its result keeps its place."""
    monkeypatch.setattr("client._stream.choose_pause", lambda tries: 0.0)
    images = make_images(20)
    raise_once(server, images[6], RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "busy"))

    assert [result.label for result in client.predict_many(images)] == expect_labels(20)
    wait_for(lambda: server.servicer.ended_streams == ["half-closed"])


def test_server_that_stays_busy_fails_the_image(
    server: FakeServer, client: StrokeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded number of tries the overload is that image's failure."""
    monkeypatch.setattr("client._stream.choose_pause", lambda tries: 0.0)

    def judge(request):
        raise RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "busy")

    server.servicer.judge = judge

    (result,) = client.predict_many([b"x"])

    assert isinstance(result.error, OverloadedError)
    assert len(server.servicer.requests) == 4


def test_image_that_hangs_fails_and_the_rest_is_answered(server: FakeServer, client: StrokeClient) -> None:
    """The timeout holds for each image: the one without an answer fails, the others are sent again."""

    def judge(request):
        return server.servicer.hang(request) if request.image == b"slow" else make_response(request)

    server.servicer.judge = judge

    results = list(client.predict_many([b"stroke", b"slow", b"stroke", b"other"], timeout=0.3))

    assert [type(result) for result in results] == [Prediction, PredictionFailure, Prediction, Prediction]
    assert isinstance(results[1].error, DeadlineExceededError)
    assert results[1].error.request_id == next(r.id for r in server.servicer.requests if r.image == b"slow")


def test_hanging_server_ends_the_run(server: FakeServer, client: StrokeClient) -> None:
    """Two images in a row without an answer: the run ends instead of waiting for every image."""
    server.servicer.judge = server.servicer.hang
    results = client.predict_many(make_images(100), timeout=0.2)
    started = time.monotonic()

    assert isinstance(next(results).error, DeadlineExceededError)
    with pytest.raises(DeadlineExceededError, match=r"within 0\.2 s"):
        next(results)

    assert time.monotonic() - started < 3


def test_slow_caller_is_not_a_slow_server(client: StrokeClient) -> None:
    """Time that the caller spends between results does not count."""
    results = client.predict_many(make_images(4), timeout=0.1)
    labels = []
    for result in results:
        labels.append(result.label)
        threading.Event().wait(0.15)

    assert labels == expect_labels(4)


def test_ended_idle_stream_is_opened_again(server: FakeServer, client: StrokeClient) -> None:
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
        assert [result.label for result in client.predict_many(images(), in_flight=1)] == ["normal", "stroke"]
    finally:
        restarted[0].stop()


def test_altered_image_fails_alone(server: FakeServer, client: StrokeClient) -> None:
    """An answer about other bytes is that image's IntegrityError."""

    def judge(request):
        response = make_response(request)
        if request.image == b"other":
            response.image_sha256 = "00" * 32
        return response

    server.servicer.judge = judge

    results = list(client.predict_many([b"stroke", b"other", b"stroke"]))

    assert [type(result) for result in results] == [Prediction, PredictionFailure, Prediction]
    assert (type(results[1].error), results[1].error.reason) == (IntegrityError, "IMAGE_ALTERED")


@pytest.mark.parametrize("as_error", [False, True])
def test_answer_with_a_wrong_id_ends_the_run(server: FakeServer, client: StrokeClient, as_error: bool) -> None:
    """When answers and requests no longer match, no further answer is believed."""

    def judge(request):
        if request.image == b"other":
            request.id = "another"
            if as_error:
                raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_EMPTY", "m")
        return make_response(request)

    server.servicer.judge = judge
    results = client.predict_many([b"stroke", b"other", b"stroke"])

    assert isinstance(next(results), Prediction)
    with pytest.raises(IntegrityError) as caught:
        next(results)
    assert caught.value.reason == "ANSWER_MISPLACED"


def test_fault_of_the_iterable_is_raised_after_what_came_before_it(client: StrokeClient) -> None:
    """An exception in the caller's iterable is not lost, and neither are the answers to earlier images."""

    def images() -> Iterator[bytes]:
        yield b"stroke"
        yield b"other"
        raise KeyError("lost")

    labels = []
    with pytest.raises(KeyError, match="lost"):
        labels.extend(result.label for result in client.predict_many(images()))

    assert labels == ["stroke", "normal"]


def test_wrong_use_is_told_at_once(client: StrokeClient) -> None:
    """A single image, a wrong window and an item that is no image are the caller's mistakes."""
    with pytest.raises(TypeError, match="predict"):
        client.predict_many("scan.png")
    with pytest.raises(ValueError, match="in_flight"):
        client.predict_many([], in_flight=0)
    with pytest.raises(TypeError, match="not int"):
        list(client.predict_many([7]))


def list_new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t not in before and not t.name.startswith("fake-server")]


@pytest.mark.parametrize("hang", [False, True])
def test_early_close_cancels_the_stream_and_leaves_no_thread(server: FakeServer, hang: bool) -> None:
    """Leaving the loop ends the call on the server, and every thread of the run here."""
    before = set(threading.enumerate())
    if hang:
        server.servicer.judge = lambda request: (
            server.servicer.hang(request) if request.image == b"other 1" else make_response(request)
        )
    with StrokeClient(server.target) as client:
        results = client.predict_many(make_images(100))
        assert next(results).label == "stroke"
        started = time.monotonic()
        results.close()
        assert time.monotonic() - started < 1
        wait_for(lambda: not any("receiver" in thread.name for thread in threading.enumerate()))
        server.servicer.released.set()
        # Not compared with "cancelled": gRPC may show the server the end of the requests before the cancellation.
        wait_for(lambda: len(server.servicer.ended_streams) == 1, 20)
        assert client.predict(b"stroke").label == "stroke"
    wait_for(lambda: not list_new_threads(before))

    assert len(server.servicer.images) < 20


def test_finished_run_leaves_no_thread(server: FakeServer) -> None:
    """After the last result nothing of the run is left, while the client stays open."""
    with StrokeClient(server.target) as client:
        list(client.predict_many(make_images(5)))
        before = set(threading.enumerate())
        for _ in range(5):
            list(client.predict_many(make_images(5)))
        wait_for(lambda: not list_new_threads(before))


def test_closing_the_client_ends_its_runs(server: FakeServer) -> None:
    """A run whose client was closed says so; it neither hangs nor shows an error of grpc."""
    client = StrokeClient(server.target)
    results = client.predict_many(make_images(100))
    next(results)
    client.close()

    with pytest.raises(ClientClosedError):
        list(results)


def test_server_that_ends_the_stream_without_answers_is_an_error(
    server: FakeServer, client: StrokeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that ends with OK and images left is tried again, then named."""
    monkeypatch.setattr("client._stream.choose_pause", lambda tries: 0.0)

    def judge(request):
        raise BrokenStreamError(None)

    server.servicer.judge = judge

    with pytest.raises(ServerError) as caught:
        list(client.predict_many([b"x"]))
    assert caught.value.reason == "STREAM_ENDED"
