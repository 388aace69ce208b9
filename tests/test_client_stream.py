"""predict_many of both clients: order, bounded window, images that fail, faults of the caller."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from client import (
    AsyncStrokeClient,
    DeadlineExceededError,
    ImageTooLargeError,
    IntegrityError,
    InvalidImageError,
    InvalidRequestError,
    OverloadedError,
    Prediction,
    PredictionFailure,
    StrokeClient,
)
from tests.client_fakes import FakeServer, RefusalError, make_response, wait_for
from tests.client_kinds import (
    Asynchronous,
    Blocking,
    ClientKind,
    FromAsyncIterable,
    endless_images,
    expect_labels,
    make_images,
)

every_kind = pytest.mark.parametrize("kind", [Blocking, Asynchronous, FromAsyncIterable])


@every_kind
def test_results_come_in_order_with_their_sources(server: FakeServer, kind: type[ClientKind], tmp_path: Path) -> None:
    """Each image gets one prediction that names it; one stream, which ends by half-close, serves them all."""
    paths = []
    for index, image in enumerate(make_images(30)):
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(image)

    results = kind(server.target).predict_many(paths, model="m", version="2")

    assert [result.source for result in results] == paths
    assert [result.index for result in results] == list(range(30))
    assert [result.label for result in results] == expect_labels(30)
    assert {(result.model, result.version) for result in results} == {("m", "2")}
    assert all(request.image_sha256 for request in server.servicer.requests)
    assert len({request.id for request in server.servicer.requests}) == 30
    wait_for(lambda: server.servicer.ended_streams == ["half-closed"])


def test_nothing_to_judge_makes_no_call(server: FakeServer, either: ClientKind) -> None:
    """An empty iterable gives no results and opens no stream."""
    assert either.predict_many([]) == []
    assert server.servicer.ended_streams == []


@every_kind
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("in_flight", [1, 8])
def test_images_are_read_no_further_than_in_flight(
    server: FakeServer, kind: type[ClientKind], in_flight: int, ordered: bool
) -> None:
    """Of 300 images never more than in_flight are read and without a result, and the window is used."""
    taken = done = furthest = 0

    def images() -> Iterator[bytes]:
        nonlocal taken, furthest
        for image in make_images(300):
            taken += 1
            furthest = max(furthest, taken - done)
            yield image

    def count(result: object) -> None:
        nonlocal done
        assert isinstance(result, Prediction)
        done += 1

    kind(server.target).predict_many(images(), in_flight=in_flight, ordered=ordered, stop=count)

    assert done == 300
    assert furthest == in_flight
    assert len(server.servicer.requests) == 300


@pytest.mark.parametrize("in_flight", [1, 8])
def test_server_is_owed_no_more_than_in_flight(server: FakeServer, either: ClientKind, in_flight: int) -> None:
    """On the wire, too, never more than in_flight images are without an answer."""
    server.servicer.hold_answers = True
    unanswered: list[int] = []

    def look(_: object) -> None:
        unanswered.append(server.servicer.most_unanswered)

    either.predict_many(make_images(100), in_flight=in_flight, stop=look)

    assert max(unanswered) == in_flight


def test_endless_images_are_no_burden(either: ClientKind) -> None:
    """The images need not end: the caller leaves when it has enough."""
    results = either.predict_many(endless_images(), stop=lambda result: result.index == 49)

    assert [result.index for result in results] == list(range(50))


def test_results_come_as_completed_on_request(server: FakeServer, either: ClientKind) -> None:
    """Without order, what is known at once does not wait for the images before it; the index tells whose it is."""
    server.servicer.judge = server.servicer.hang
    images = [b"stroke", b"", b"other"]

    def release(result: object) -> None:
        server.servicer.released.set()

    results = either.predict_many(images, ordered=False, stop=release)

    assert [result.index for result in results] == [1, 0, 2]
    assert isinstance(results[0], PredictionFailure)
    assert [result.label for result in results[1:]] == ["stroke", "normal"]


def test_slow_images_do_not_hold_up_results(server: FakeServer) -> None:
    """A result that arrives while an asynchronous iterable waits for its next image is yielded at once."""

    async def run() -> list[str]:
        seen = asyncio.Event()
        labels = []

        async def images():
            yield b"stroke"
            await seen.wait()
            yield b"other"

        async with AsyncStrokeClient(server.target) as client:
            async for result in client.predict_many(images()):
                labels.append(result.label)
                seen.set()
        return labels

    assert asyncio.run(asyncio.wait_for(run(), 60)) == ["stroke", "normal"]


def test_bytes_are_not_kept_in_results(either: ClientKind) -> None:
    """A result names bytes without holding them, so that a list of results stays small."""
    (result,) = either.predict_many([b"stroke"])

    assert result.source == "<bytes>"


def test_bad_images_do_not_end_the_run(server: FakeServer, either: ClientKind, tmp_path: Path) -> None:
    """An unreadable file and a refused image are failures in their places; the others are answered."""

    def judge(request):
        if request.image == b"text":
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The file is text.")
        return make_response(request)

    server.servicer.judge = judge
    missing = tmp_path / "missing.png"

    results = either.predict_many([b"stroke", missing, b"", b"text", b"stroke"])

    assert [type(result) for result in results] == [Prediction, *[PredictionFailure] * 3, Prediction]
    assert [result.index for result in results] == [0, 1, 2, 3, 4]
    assert results[1].source == missing
    reasons = ["IMAGE_UNREADABLE", "IMAGE_EMPTY", "IMAGE_UNDECODABLE"]
    assert [result.error.reason for result in results[1:4]] == reasons
    assert isinstance(results[3].error, InvalidImageError)
    assert str(results[3].error) == "The file is text."
    assert results[3].error.request_id == server.servicer.requests[1].id


def test_image_above_the_limit_is_not_sent(server: FakeServer, either: ClientKind) -> None:
    """What is too large by the client's own limit fails on this side."""
    either.options["max_image_bytes"] = 10

    results = either.predict_many([b"stroke", b"x" * 11])

    assert [type(result) for result in results] == [Prediction, PredictionFailure]
    assert isinstance(results[1].error, ImageTooLargeError)
    assert server.servicer.images == [b"stroke"]


def test_busy_server_is_asked_again_for_that_image(
    server: FakeServer, either: ClientKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image refused for overload is sent again on the same stream, and its result keeps its place."""
    monkeypatch.setattr("client._retry.choose_pause", lambda error, backoff, hint_limit: 0.0)
    images = make_images(20)
    server.servicer.raise_once(images[6], RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "busy"))

    assert [result.label for result in either.predict_many(images)] == expect_labels(20)
    wait_for(lambda: server.servicer.ended_streams == ["half-closed"])


def test_server_that_stays_busy_fails_the_image(server: FakeServer, either: ClientKind) -> None:
    """When the time of the image is over, the overload is its failure."""

    def judge(request):
        raise RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "busy")

    server.servicer.judge = judge

    started = time.monotonic()
    (result,) = either.predict_many([b"x"], timeout=1)

    assert isinstance(result.error, OverloadedError)
    assert 0.8 < time.monotonic() - started < 20
    assert len(server.servicer.requests) > 1


def test_image_that_hangs_fails_and_the_rest_is_answered(server: FakeServer, either: ClientKind) -> None:
    """The timeout holds for each image: the one without an answer fails, the others are sent again."""

    def judge(request):
        return server.servicer.hang(request) if request.image == b"slow" else make_response(request)

    server.servicer.judge = judge

    results = either.predict_many([b"stroke", b"slow", b"stroke", b"other"], timeout=0.3)

    assert [type(result) for result in results] == [Prediction, PredictionFailure, Prediction, Prediction]
    assert isinstance(results[1].error, DeadlineExceededError)
    assert results[1].error.request_id == next(r.id for r in server.servicer.requests if r.image == b"slow")


def test_slow_caller_is_not_a_slow_server(either: ClientKind) -> None:
    """Time that the caller spends between results does not count."""
    results = either.predict_many(make_images(3), timeout=0.5, stop=lambda result: threading.Event().wait(0.6))

    assert [result.label for result in results] == expect_labels(3)


def test_altered_image_fails_alone(server: FakeServer, either: ClientKind) -> None:
    """An answer about other bytes is that image's IntegrityError."""

    def judge(request):
        response = make_response(request)
        if request.image == b"other":
            response.image_sha256 = "00" * 32
        return response

    server.servicer.judge = judge

    results = either.predict_many([b"stroke", b"other", b"stroke"])

    assert [type(result) for result in results] == [Prediction, PredictionFailure, Prediction]
    assert (type(results[1].error), results[1].error.reason) == (IntegrityError, "IMAGE_ALTERED")


@pytest.mark.parametrize("as_error", [False, True])
def test_answer_with_a_wrong_id_ends_the_run(server: FakeServer, either: ClientKind, as_error: bool) -> None:
    """When answers and requests no longer match, no further answer is believed."""

    def judge(request):
        if request.image == b"other":
            request.id = "another"
            if as_error:
                raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_EMPTY", "m")
        return make_response(request)

    server.servicer.judge = judge
    results: list[object] = []

    with pytest.raises(IntegrityError) as caught:
        either.predict_many([b"stroke", b"other", b"stroke"], into=results)

    assert caught.value.reason == "ANSWER_MISPLACED"
    assert [type(result) for result in results] == [Prediction]


@every_kind
def test_fault_of_the_iterable_is_raised_after_what_came_before_it(server: FakeServer, kind: type[ClientKind]) -> None:
    """An exception in the caller's iterable is not lost, and neither are the answers to earlier images."""

    def images() -> Iterator[bytes]:
        yield b"stroke"
        yield b"other"
        raise KeyError("lost")

    results: list[Prediction] = []
    with pytest.raises(KeyError, match="lost"):
        kind(server.target).predict_many(images(), into=results)

    assert [result.label for result in results] == ["stroke", "normal"]


def test_item_that_is_no_image_is_a_type_error(either: ClientKind) -> None:
    """A number among the images is the caller's mistake, not the image's."""
    with pytest.raises(TypeError, match="not int"):
        either.predict_many([b"stroke", 7])


def test_wrong_use_is_told_at_once(client: StrokeClient) -> None:
    """A single image, a wrong window and an unsendable name are refused before the first result is asked for."""
    with pytest.raises(TypeError, match="predict"):
        client.predict_many("scan.png")
    with pytest.raises(ValueError, match="in_flight"):
        client.predict_many([], in_flight=0)
    with pytest.raises(InvalidRequestError):
        client.predict_many([], model="\udc80")
