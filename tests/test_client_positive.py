"""Several positive labels in the client: what it believes of an answer, what older servers leave out, what it shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from client import ServerError, StrokeClient
from proto import stroke_pb2
from tests.client_fakes import FakeServer, make_response
from tests.command_lines import open_session, render_screen

KINDS = ("haemorrhagic", "ischaemic")
PROBABILITIES = {b"bleed": (0.1, 0.7, 0.2), b"infarct": (0.1, 0.3, 0.6), b"nothing": (0.9, 0.06, 0.04)}


def judge(request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
    """Three classes; what an image shows are its bytes."""
    response = make_response(request)
    probabilities = next(value for key, value in PROBABILITIES.items() if request.image.startswith(key))
    labels = ("normal", *KINDS)
    best = max(range(3), key=probabilities.__getitem__)
    response.label, response.confidence, response.threshold = labels[best], probabilities[best], 0.5
    del response.scores[:]
    for label, probability in zip(labels, probabilities, strict=True):
        response.scores.add(label=label, probability=probability)
    response.positive_labels.extend(KINDS)
    response.positive_label = KINDS[probabilities[2] > probabilities[1]]
    response.positive_probability = sum(probabilities[1:])
    return response


@pytest.fixture(autouse=True)
def kinds(server: FakeServer) -> None:
    server.servicer.judge = judge


def change(**fields: object) -> Callable[[stroke_pb2.PredictRequest], stroke_pb2.PredictResponse]:
    """Answers that differ in some fields."""

    def answer(request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
        response = judge(request)
        for name in fields:
            response.ClearField(name)  # type: ignore[arg-type]
        response.MergeFrom(stroke_pb2.PredictResponse(**fields))  # type: ignore[arg-type]
        return response

    return answer


def test_answer_knows_all_positive_labels(client: StrokeClient) -> None:
    """And the probability of them together, by which images compare."""
    bleed, infarct, nothing = (client.predict(image) for image in PROBABILITIES)

    assert [one.label for one in (bleed, infarct, nothing)] == ["haemorrhagic", "ischaemic", "normal"]
    assert [one.is_positive for one in (bleed, infarct, nothing)] == [True, True, False]
    assert {one.positive_labels for one in (bleed, infarct, nothing)} == {KINDS}
    assert nothing.positive_label == "haemorrhagic"
    assert str(infarct) == "ischaemic 0.600  P(haemorrhagic or ischaemic) 0.900  (stroke-cnn 1, threshold 0.5)"


@pytest.mark.parametrize(
    "fields",
    [
        {"positive_label": "ischaemic"},  # and the label is the other one
        {"positive_label": "normal"},
        {"positive_labels": ["haemorrhagic", "unheard of"]},
        {"positive_labels": ["ischaemic"]},
    ],
)
def test_answer_that_contradicts_itself_is_never_returned(
    fields: dict[str, object], server: FakeServer, client: StrokeClient
) -> None:
    """A label that is looked for is the most probable of these, and all of them have a probability."""
    server.servicer.judge = change(**fields)

    with pytest.raises(ServerError) as caught:
        client.predict(b"bleed")

    assert caught.value.reason == "ANSWER_INVALID"


def test_older_server_has_one_positive_label(server: FakeServer, client: StrokeClient) -> None:
    """That which it says, or which fits what it says."""
    server.servicer.judge = change(positive_labels=[])
    assert client.predict(b"bleed").positive_labels == ("haemorrhagic",)

    server.servicer.judge = make_response
    assert client.predict(b"stroke").positive_labels == ("stroke",)
    assert client.predict(b"stroke").is_positive
    assert (client.model_info().positive_labels, client.model_info().positive_text) == (("stroke",), "stroke")


def test_not_analysed_is_not_positive(server: FakeServer, client: StrokeClient) -> None:
    """Whatever its probabilities say."""
    status = stroke_pb2.PredictResponse.NOT_ANALYSED
    server.servicer.judge = change(status=status, label="", confidence=0.0)

    prediction = client.predict(b"bleed")

    assert (prediction.positive_label, prediction.is_positive) == ("haemorrhagic", False)


def test_terminal_marks_both_kinds(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a heading that fits: the column is of both together. The summary calls both positive."""
    model = stroke_pb2.Model(name="stroke-cnn", version="1", labels=("normal", *KINDS), positive_labels=KINDS)
    monkeypatch.setattr("tests.client_fakes.MODEL", model)
    (tmp_path / "scans").mkdir()
    for image in PROBABILITIES:
        (tmp_path / "scans" / f"{image.decode()}.png").write_bytes(image)

    with open_session("scans", columns=100, cwd=tmp_path, STROKE_SERVER=server.target) as session:
        pass

    lines = render_screen(session.raw)
    assert [line.split() for line in lines[:5]] == [
        ["stroke-cnn", "1,", "threshold", "0.5"],
        ["file", "answer", "P(positive)"],
        ["*", "scans/bleed.png", "haemorrhagic", "0.900"],
        ["*", "scans/infarct.png", "ischaemic", "0.900"],
        ["scans/nothing.png", "normal", "0.100"],
    ]
    summary = " ".join(line.strip() for line in lines[5:])
    assert summary.startswith("3 images: 1 positive (haemorrhagic), 1 positive (ischaemic), 1 normal, 0 failed; ")
