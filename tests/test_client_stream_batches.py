"""predict_many: which images go in one message, and what happens with servers that take no such messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from client import (
    ImageTooLargeError,
    IntegrityError,
    Prediction,
    PredictionFailure,
    ServerError,
    StrokeClientError,
)
from client.stream.wire import BATCHES, SINGLES, StreamEvent
from proto.stroke_pb2_grpc import StrokeServiceServicer
from tests.client_fakes import FakeServer, RecordingServicer, serve
from tests.client_kinds import Asynchronous, Blocking, ClientKind, expect_labels, make_images
from tests.stream_driver import Driver

OLD = ServerError("no such method", "UNIMPLEMENTED", "UNIMPLEMENTED")
every_kind = pytest.mark.parametrize("kind", [Blocking, Asynchronous])
TOO_LARGE = ImageTooLargeError("message larger than max", "IMAGE_TOO_LARGE", "RESOURCE_EXHAUSTED")


def test_half_a_window_goes_in_one_message() -> None:
    """Images that are read quickly go together; while the server judges the one half, the other is on its way."""
    driver = Driver(in_flight=8)
    driver.admit(8, seconds=0)
    (call,) = driver.calls
    assert call.messages == [[0, 1, 2, 3], [4, 5, 6, 7]]

    for _ in range(4):
        driver.answer(call)
    assert driver.take() == [0, 1, 2, 3]
    driver.admit(4, seconds=0)

    assert call.messages[2:] == [[8, 9, 10, 11]]


def test_image_does_not_wait_long_for_others() -> None:
    """When the next image takes its time, or there is none, what has been read goes out without it."""
    driver = Driver(in_flight=8)
    driver.admit(1, now=1.0, seconds=0)
    assert driver.calls == []
    wake_at = driver.run.wake_at()
    assert wake_at is not None
    driver.run.pass_time(wake_at)
    (call,) = driver.calls
    driver.admit(1, now=2.0, seconds=0)
    driver.admit(1, now=2.1, seconds=0.1)  # it has held up the one before, too
    driver.admit(1, now=3.0, seconds=0)
    driver.run.end_images(3.0)

    assert 1.0 < wake_at <= 1.01
    assert call.messages == [[0], [1, 2], [3]]


def test_image_does_not_wait_for_the_caller() -> None:
    """A result can keep the caller busy for as long as it likes: what has been read is sent before."""
    driver = Driver(in_flight=8)
    driver.admit(1)
    driver.admit(1, seconds=0)
    driver.answer(driver.calls[0])

    assert driver.calls[0].messages == [[0], [1]]


@pytest.mark.parametrize("error", [OLD, TOO_LARGE])
def test_server_that_takes_no_batches_gets_single_images(error: StrokeClientError) -> None:
    """It is older than they are, or takes messages of a few small images: no image is failed for that, and the other
    lane, whose call ends likewise, changes over, too."""
    driver = Driver(lanes=2)
    driver.admit(4)
    first, second = driver.calls
    driver.end(first, error=error)
    driver.end(second, error=error)

    third, fourth = driver.calls[2:]
    assert (first.form, second.form, third.form, fourth.form) == (BATCHES, BATCHES, SINGLES, SINGLES)
    assert (third.messages, fourth.messages) == ([[0], [2]], [[1], [3]])
    assert driver.take() == []


def test_image_too_large_by_itself_is_failed() -> None:
    """Of the single images, the largest one is what the server did not take."""
    driver = Driver()
    driver.admit(1)
    driver.admit(1, image=b"large" * 9)
    driver.end(driver.calls[0], error=TOO_LARGE)
    driver.end(driver.calls[1], error=TOO_LARGE)
    driver.answer(driver.calls[2])

    results = [driver.run.take_result(), driver.run.take_result()]
    assert [type(result) for result in results] == [Prediction, PredictionFailure]


def test_image_that_had_a_message_to_itself_does_not_end_batches() -> None:
    """It is known to be the one that was too large; small images go on travelling together."""
    driver = Driver(max_image_bytes=1 << 22)
    driver.admit(1)
    driver.admit(1, image=b"x" * (BATCHES.most_bytes + 1))
    driver.end(driver.calls[0], error=TOO_LARGE)
    driver.answer(driver.calls[1])

    assert driver.calls[1].form is BATCHES
    results = [driver.run.take_result(), driver.run.take_result()]
    assert [type(result) for result in results] == [Prediction, PredictionFailure]


def test_method_that_no_server_has_ends_the_run() -> None:
    """Single images are as old as the API; a server without them is no StrokeServe."""
    driver = Driver()
    driver.admit(1)
    driver.end(driver.calls[0], error=OLD)

    with pytest.raises(ServerError, match="no such method"):
        driver.end(driver.calls[1], error=OLD)


def test_message_without_answers_ends_the_run() -> None:
    """The API knows none; a server that sends them for ever must not keep the run waiting."""
    driver = Driver()
    driver.admit(1)

    with pytest.raises(IntegrityError):
        driver.run.handle(StreamEvent(driver.calls[0], 0.0, []), 0.0)


def test_message_holds_so_many_images_and_bytes() -> None:
    """Whichever is reached first; an image that is larger than a message goes alone."""
    form = replace(BATCHES, most_images=3, most_bytes=100)
    driver = Driver()
    images = [driver.settings.load(b"x" * size, 0) for size in (10, 10, 10, 10, 80, 20, 500, 1, 1)]

    assert [[len(image.data) for image in message] for message in form.split(images)] == [
        [10, 10, 10],
        [10, 80],
        [20],
        [500],
        [1, 1],
    ]
    assert list(form.split([])) == []


def test_half_windows_travel_together(server: FakeServer, either: ClientKind) -> None:
    """On the wire, too: messages of half a window, as far as this process is not held up while it reads."""
    results = either.predict_many(make_images(64), in_flight=16)

    assert len(results) == 64
    (sizes,) = server.servicer.batch_sizes
    assert sum(sizes) == 64
    assert max(sizes) == 8
    assert len(sizes) < 32


@every_kind
def test_server_from_before_batches_is_served(kind: type[ClientKind]) -> None:
    """Each image is judged once, in order, one to a message."""

    class OldServicer(RecordingServicer):
        PredictBatches = StrokeServiceServicer.PredictBatches

    with serve(OldServicer()) as server:
        results = kind(server.target).predict_many(make_images(30))

        assert [result.label for result in results] == expect_labels(30)
        assert server.servicer.images == make_images(30)
        assert server.servicer.batch_sizes == []
        assert server.servicer.ended_streams == ["half-closed"]


@every_kind
def test_server_of_small_messages_gets_what_it_takes(kind: type[ClientKind]) -> None:
    """Several images in a message may be more than a server takes where each of them is not; what is, fails alone."""
    images = [bytes([number]) * 30_000 for number in range(1, 9)]
    images[2] = b"x" * 200_000
    with serve(options=[("grpc.max_receive_message_length", 100_000)]) as server:
        results = kind(server.target).predict_many(images)

    assert [type(result) for result in results] == [Prediction] * 2 + [PredictionFailure] + [Prediction] * 5
    assert isinstance(results[2].error, ImageTooLargeError)
