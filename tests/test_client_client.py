"""StrokeClient: single images, models, readiness, life cycle."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

import client as client_package
from client import (
    ClientClosedError,
    DeadlineExceededError,
    ImageReadError,
    ImageTooLargeError,
    IntegrityError,
    InvalidImageError,
    InvalidRequestError,
    ModelNotFoundError,
    ServerError,
    ServerUnavailableError,
    StrokeClient,
)
from proto import stroke_pb2
from tests.client_fakes import (
    FakeServer,
    RecordingServicer,
    RefusalError,
    make_refusal_to_judge,
    make_response,
    wait_for,
)

IMAGE = b"stroke image"


def test_prediction_holds_everything_the_server_said(server: FakeServer, client: StrokeClient, tmp_path: Path) -> None:
    """A prediction carries every field of the answer, and its source."""

    def judge(request):
        response = make_response(request)
        response.warnings.add(reason="IMAGE_BLANK", message="The image is blank.")
        return response

    server.servicer.judge = judge
    path = tmp_path / "scan.png"
    path.write_bytes(IMAGE)

    prediction = client.predict(path, request_id="r-1")

    assert (prediction.label, prediction.threshold) == ("stroke", 0.05)
    assert (prediction.model, prediction.version) == ("stroke-cnn", "1")
    assert prediction.confidence == pytest.approx(0.973)
    assert list(prediction.scores) == ["normal", "stroke"]
    assert prediction.digest == "ab" * 32
    assert prediction.image_sha256 == hashlib.sha256(IMAGE).hexdigest()
    assert prediction.timings == client_package.Timings(1.5, 0.25, 20.125)
    assert prediction.warnings == (client_package.ImageWarning("IMAGE_BLANK", "The image is blank."),)
    assert prediction.request_id == "r-1"
    assert prediction.source == path
    assert str(prediction) == "stroke 0.973  P(stroke) 0.973  (stroke-cnn 1, threshold 0.05)"


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "bytearray", "file", "raw file"])
def test_image_may_be_given_in_many_ways(server: FakeServer, client: StrokeClient, tmp_path: Path, kind: str) -> None:
    """Paths, bytes and binary files send the same bytes, untouched."""
    path = tmp_path / "scan.png"
    path.write_bytes(IMAGE * 20_000)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        image = {
            "str": str(path),
            "path": path,
            "bytes": path.read_bytes(),
            "bytearray": bytearray(path.read_bytes()),
            "file": file,
            "raw file": raw,
        }[kind]
        client.predict(image)

    assert server.servicer.images == [IMAGE * 20_000]


def test_request_states_digest_id_and_model(server: FakeServer, client: StrokeClient) -> None:
    """The request holds the image's SHA-256, a random id and the model that was asked for."""
    client.predict(IMAGE, model="resnet", version="7")
    client.predict(IMAGE)

    first, second = server.servicer.requests
    assert first.image_sha256 == hashlib.sha256(IMAGE).hexdigest()
    assert (first.model_name, first.model_version) == ("resnet", "7")
    assert (second.model_name, second.model_version) == ("", "")
    assert len(first.id) == len(second.id) == 32
    assert first.id != second.id


def test_deadline_reaches_the_server(server: FakeServer, client: StrokeClient) -> None:
    """The client's timeout, or the call's own, is the deadline on the wire."""
    client.predict(IMAGE)
    client.predict(IMAGE, timeout=60)

    default, own = server.servicer.time_remaining
    assert 3 < default <= 5.1
    assert 55 < own <= 60.1


def test_hanging_server_ends_in_deadline_exceeded(server: FakeServer, client: StrokeClient) -> None:
    """A server that does not answer costs no more than the timeout."""
    server.servicer.judge = server.servicer.hang
    started = time.monotonic()

    with pytest.raises(DeadlineExceededError, match="no answer from") as caught:
        client.predict(IMAGE, timeout=0.2, request_id="r-2")

    assert time.monotonic() - started < 4
    assert (caught.value.code, caught.value.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert caught.value.request_id == "r-2"


def test_image_that_was_not_analysed_has_no_label(server: FakeServer, client: StrokeClient) -> None:
    """It is an answer, with scores and reasons, alone and among others, and its line has no label in it."""
    server.servicer.judge = make_refusal_to_judge

    for prediction in (client.predict(IMAGE), *client.predict_many([IMAGE])):
        assert isinstance(prediction, client_package.Prediction)
        assert (prediction.label, prediction.confidence) == ("", 0)
        assert prediction.status == client_package.AnalysisStatus.NOT_ANALYSED == "NOT_ANALYSED"
        assert not prediction.is_analysed
        assert prediction.reasons == (client_package.Reason("NO_HEAD", "There is no head."),)
        assert prediction.positive_probability == prediction.scores["stroke"] == pytest.approx(0.973)
        assert str(prediction) == "not analysed [NO_HEAD] There is no head.  (stroke-cnn 1)"


def test_positive_probability_is_what_the_server_says(server: FakeServer, client: StrokeClient) -> None:
    """Of the positive label, also where another one is the answer."""

    def judge(request):
        response = make_response(request)
        response.MergeFrom(
            stroke_pb2.PredictResponse(
                positive_label="normal", positive_probability=0.027, status=stroke_pb2.PredictResponse.ANALYSED
            )
        )
        return response

    server.servicer.judge = judge

    prediction = client.predict(IMAGE)

    assert (prediction.positive_label, prediction.positive_probability) == ("normal", pytest.approx(0.027))
    assert (prediction.status, prediction.reasons) == ("ANALYSED", ())


@pytest.mark.parametrize(
    ("label", "normal", "threshold", "positive"),
    [
        ("stroke", 0.027, 0.05, "stroke"),
        ("stroke", 0.885, 0.11, "stroke"),  # only its own threshold can have made it the answer
        ("normal", 0.99, 0.05, "stroke"),
        ("stroke", 0.8, 0.9, "normal"),
    ],
)
def test_older_servers_leave_the_positive_label_to_the_scores(
    label: str, normal: float, threshold: float, positive: str, server: FakeServer, client: StrokeClient
) -> None:
    """The one that fits the answer, of several the last; every image is analysed there."""

    def judge(request):
        response = make_response(request)
        response.label, response.threshold = label, threshold
        response.scores[0].probability, response.scores[1].probability = normal, 1 - normal
        return response

    server.servicer.judge = judge

    prediction = client.predict(IMAGE)

    assert prediction.positive_label == positive
    assert prediction.positive_probability == prediction.scores[positive]
    assert prediction.is_analysed


@pytest.mark.parametrize(
    ("field", "value", "error", "reason"),
    [
        ("image_sha256", "00" * 32, IntegrityError, "IMAGE_ALTERED"),
        ("image_sha256", "", IntegrityError, "IMAGE_ALTERED"),
        ("id", "another", IntegrityError, "ANSWER_MISPLACED"),
        ("confidence", float("nan"), ServerError, "ANSWER_INVALID"),
        ("confidence", 1.5, ServerError, "ANSWER_INVALID"),
        ("label", "unheard of", ServerError, "ANSWER_INVALID"),
        ("label", "", ServerError, "ANSWER_INVALID"),
        ("positive_label", "unheard of", ServerError, "ANSWER_INVALID"),
        ("status", stroke_pb2.PredictResponse.NOT_ANALYSED, ServerError, "ANSWER_INVALID"),
    ],
)
def test_unsound_answer_is_never_returned(
    server: FakeServer, client: StrokeClient, field: str, value: object, error: type[Exception], reason: str
) -> None:
    """An answer about other bytes, for another request, or with impossible figures is an error."""

    def judge(request):
        response = make_response(request)
        setattr(response, field, value)
        return response

    server.servicer.judge = judge

    with pytest.raises(error) as caught:
        client.predict(IMAGE)

    assert caught.value.reason == reason
    assert caught.value.request_id == server.servicer.requests[0].id


@pytest.mark.parametrize(
    ("image", "error", "reason"),
    [
        (b"", InvalidImageError, "IMAGE_EMPTY"),
        (io.BytesIO(), InvalidImageError, "IMAGE_EMPTY"),
        ("/no/such/file.png", ImageReadError, "IMAGE_UNREADABLE"),
        ("/", ImageReadError, "IMAGE_UNREADABLE"),
        ("nul\0.png", ImageReadError, "IMAGE_UNREADABLE"),
        (io.StringIO("text"), ImageReadError, "IMAGE_UNREADABLE"),
        (b"x" * 1001, ImageTooLargeError, "IMAGE_TOO_LARGE"),
        ("/dev/zero", ImageTooLargeError, "IMAGE_TOO_LARGE"),
    ],
)
def test_unusable_image_is_refused_before_it_is_sent(
    server: FakeServer, image: object, error: type[Exception], reason: str
) -> None:
    """Missing, empty, endless and oversized images fail on this side."""
    with StrokeClient(server.target, max_image_bytes=1000) as client, pytest.raises(error) as caught:
        client.predict(image)

    assert (caught.value.reason, caught.value.code) == (reason, None)
    assert server.servicer.requests == []


def test_wrong_type_is_a_type_error(client: StrokeClient) -> None:
    """A number is no image: the caller's mistake, not the image's."""
    with pytest.raises(TypeError, match="not int"):
        client.predict(7)


def test_unsendable_text_is_an_invalid_request(client: StrokeClient) -> None:
    """A model name that is no valid text becomes the client's error, not protobuf's."""
    with pytest.raises(InvalidRequestError):
        client.predict(IMAGE, model="\udc80")
    with pytest.raises(InvalidRequestError):
        client.model_info("\udc80")


def test_images_beyond_four_mebibytes_are_sent(server: FakeServer, client: StrokeClient) -> None:
    """The client adds no limit of gRPC's own: the server's answer to a large message is ImageTooLargeError."""
    with pytest.raises(ImageTooLargeError, match="larger than the server") as caught:
        client.predict(b"x" * (5 * 2**20))

    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "IMAGE_TOO_LARGE")
    assert re.search(r"limit 4194304\).* up to 67108864 bytes \(max_image_bytes\)", str(caught.value))


def test_model_info_holds_every_field(client: StrokeClient) -> None:
    """model_info() and list_models() return all that the server says of a model; the card only comes with the first."""
    model = client.model_info()

    assert model.model_card == "# Model card\n"
    assert client.list_models() == [replace(model, model_card="")]
    assert set(stroke_pb2.Model.DESCRIPTOR.fields_by_name) == set(vars(model))
    assert (model.name, model.labels, model.input_height) == ("stroke-cnn", ("normal", "stroke"), 256)
    assert list(model.metrics.items()) == [("auc", 0.9), ("sensitivity", 0.8)]
    assert model.provenance == {"data": "synthetic"}


def test_unknown_model_says_what_the_server_said(client: StrokeClient) -> None:
    """The server's sentence and reason reach the caller."""
    with pytest.raises(ModelNotFoundError, match="There is no model 'x'") as caught:
        client.model_info("x")

    assert caught.value.reason == "MODEL_NOT_FOUND"


def test_restarted_server_is_not_noticed(server: FakeServer) -> None:
    """A call during the restart of the server is repeated within its timeout."""
    with StrokeClient(server.target, timeout=5) as client:
        client.predict(IMAGE)
        server.stop()
        restarted = []
        timer = threading.Timer(0.3, lambda: restarted.append(FakeServer(RecordingServicer(), server.port)))
        timer.start()
        try:
            assert client.predict(IMAGE).label == "stroke"
        finally:
            timer.join()
            restarted[0].stop()


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_dropped_call_is_repeated(server: FakeServer, client: StrokeClient, code: grpc.StatusCode) -> None:
    """UNAVAILABLE and CANCELLED, which a stopping server sends, are tried four times in all."""

    def judge(request):
        if len(server.servicer.requests) % 4:
            raise RefusalError(code)
        return make_response(request)

    server.servicer.judge = judge

    assert client.predict(IMAGE).label == "stroke"
    assert len(server.servicer.requests) == 4
    assert len({request.id for request in server.servicer.requests}) == 1


def test_refused_image_is_not_repeated(server: FakeServer, client: StrokeClient) -> None:
    """What cannot succeed is sent once."""

    def judge(request):
        raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The image is damaged.")

    server.servicer.judge = judge

    with pytest.raises(InvalidImageError, match=r"^The image is damaged\.$") as caught:
        client.predict(IMAGE)

    assert len(server.servicer.requests) == 1
    assert (caught.value.reason, caught.value.code) == ("IMAGE_UNDECODABLE", "INVALID_ARGUMENT")


def test_unreachable_server_says_what_to_do() -> None:
    """No server is one clear sentence."""
    with StrokeClient("127.0.0.1:1") as client, pytest.raises(ServerUnavailableError) as caught:
        client.model_info(timeout=3)

    assert str(caught.value) == "no server answers at 127.0.0.1:1: is it running (python -m server)?"
    assert (caught.value.reason, caught.value.code) == ("SERVER_UNREACHABLE", "UNAVAILABLE")


def test_closed_client_says_so(server: FakeServer) -> None:
    """Every method of a closed client raises ClientClosedError, and closing twice is fine."""
    client = StrokeClient(server.target)
    client.close()
    client.close()

    for call in (
        lambda: client.predict(IMAGE),
        lambda: client.predict_many([IMAGE]),
        client.model_info,
        client.list_models,
        client.wait_until_ready,
    ):
        with pytest.raises(ClientClosedError, match="is closed"):
            call()


def test_given_channel_is_used_and_left_open(server: FakeServer) -> None:
    """A channel that was passed in belongs to the caller; closed by them, it is no ValueError of grpc."""
    channel = grpc.insecure_channel(server.target)
    with StrokeClient(channel=channel) as client:
        assert client.predict(IMAGE).label == "stroke"
    with StrokeClient(channel=channel) as client:
        assert client.predict(IMAGE).label == "stroke"
        channel.close()
        with pytest.raises(ClientClosedError):
            client.predict(IMAGE)
        with pytest.raises(ClientClosedError):
            list(client.predict_many([IMAGE]))


def test_proxy_of_the_environment_is_not_used(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images go straight to the server, whatever http_proxy says."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with StrokeClient(server.target, timeout=3) as client:
        assert client.predict(IMAGE).label == "stroke"


def test_client_may_be_shared_by_threads(server: FakeServer, client: StrokeClient) -> None:
    """Concurrent calls on one client each get their own answer."""
    labels: dict[int, str] = {}

    def predict(index: int) -> None:
        labels[index] = client.predict(IMAGE if index % 2 else b"other").label

    threads = [threading.Thread(target=predict, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(labels) == 16)
    for thread in threads:
        thread.join()

    assert labels == {index: "stroke" if index % 2 else "normal" for index in range(16)}
