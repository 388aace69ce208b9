"""Requests of the inference protocol and the core: what is passed on, and what comes back, without a transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from server.admission.status import Status
from server.core.detector import Detection
from server.errors import OverloadedError, RequestError
from server.images.checks import BLANK
from server.images.image_file import ImageWarning
from server.models.active import Release
from server.models.family import Choice, Route, Served, Usage
from server.oip.inference import InferAnswer, Inference
from server.oip.outputs import NAMES, classify, make_outputs
from server.oip.request import InferRequest, InputTensor, WantedOutput
from tests.fakes import SPEC

MODEL: Any = SimpleNamespace(spec=SPEC, digest="d" * 64, runtime="onnxruntime")
JUDGED = Detection(MODEL, "stroke", 0.75, (0.25, 0.75), "00", 1.0, 1.0, 1.0, (), ())
UNANALYSED = replace(
    JUDGED, label="", confidence=0.0, reasons=(BLANK,), warnings=(ImageWarning("IMAGE_BLANK", "It is blank."),)
)
REFUSED = Status("INVALID_ARGUMENT", "IMAGE_TRUNCATED", "Cut.")


class FakeJudge:
    """Remembers what it was asked, and answers what it is told to."""

    def __init__(self, *outcomes: Detection | Status) -> None:
        self.outcomes = outcomes
        self.asked: list[tuple[list[Any], dict[str, Any]]] = []

    def check_room(self, call: Any) -> None:
        if not self.outcomes:
            raise OverloadedError("QUEUE_FULL", "Full.", retry_after=1)

    async def answer_all(self, call: Any, requests: Sequence[Any], **options: Any) -> list[Detection | Status]:
        self.asked.append((list(requests), options))
        return list(self.outcomes[: len(requests)])


class FakeCall:
    """A call whose message is taken at most once."""

    def __init__(self, share: Any = None) -> None:
        self.request_id = ""
        self.held = SimpleNamespace(data=b"message", share=share)
        self.is_taken = False

    def name_itself(self, request_id: str) -> None:
        self.request_id = request_id or "made"

    async def unfold(self, held: Any, most_bytes: int) -> bytes:
        data, held.data = held.data, b""
        return bytes(data)

    @asynccontextmanager
    async def take_message(self) -> AsyncIterator[Any]:
        self.is_taken = True
        yield self.held


def make_request(images: int = 1, **fields: Any) -> InferRequest:
    elements = [b"image"] * images
    return InferRequest(inputs=[InputTensor("image", "BYTES", (images,), elements)], **fields)


def answer(judge: FakeJudge, request: InferRequest, call: Any = None) -> InferAnswer | Status:
    choice = Choice(Served(MODEL, Release("1", ""), 0, Usage()), "stable", None)
    registry: Any = SimpleNamespace(find=lambda name, version: Route(choice))
    inference = Inference(registry, judge, 1 << 20)  # type: ignore[arg-type]
    return asyncio.run(inference.answer(call or FakeCall(), lambda data: request))


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    """One that judges up to three images."""
    return FakeJudge(JUDGED, UNANALYSED, JUDGED)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, (float("inf"), False)),
        ({"priority": 0, "timeout": 0}, (float("inf"), False)),
        ({"priority": 1, "timeout": 250_000}, (0.25, True)),
        ({"priority": 2}, (float("inf"), False)),
    ],
)
def test_priority_and_timeout_are_passed_on(
    parameters: dict[str, int], expected: tuple[float, bool], judge: FakeJudge
) -> None:
    """1 is before all others; microseconds become seconds."""
    answer(judge, make_request(parameters=parameters))

    (_, options), *_ = judge.asked
    assert (options["seconds"], options["urgent"]) == expected
    assert not options["is_stream"]


def test_each_image_has_an_id_and_the_model_of_the_request(judge: FakeJudge) -> None:
    """So all images of a request are judged by one, and the log says which image it was."""
    answer(judge, make_request(1, id="x"))
    answer(judge, make_request(3, id="y" * 128))

    (single, _), (several, _) = judge.asked
    assert [one.id for one in single] == ["x"]
    assert [one.id for one in several] == [f"{'y' * 120}/{index}" for index in range(3)]
    assert {(one.model_name, one.model_version) for one in (*single, *several)} == {(SPEC.name, SPEC.version)}


def test_first_image_that_failed_is_named() -> None:
    """Where there are several; its code and reason stay its own."""
    several = answer(FakeJudge(JUDGED, REFUSED, REFUSED), make_request(3))
    alone = answer(FakeJudge(REFUSED), make_request())

    assert several == replace(REFUSED, message="Element 1 of input 'image' (of 3): Cut.")
    assert alone == REFUSED


def test_nothing_is_taken_in_where_there_is_no_room() -> None:
    """Nor is anything judged of a request that has a fault anywhere."""
    call = FakeCall()
    with pytest.raises(OverloadedError):
        answer(FakeJudge(), make_request(), call)
    assert not call.is_taken

    judge = FakeJudge(JUDGED)
    for request in (make_request(outputs=[WantedOutput("x")]), make_request(parameters={"priority": "1"})):
        with pytest.raises(RequestError):
            answer(judge, request)
    assert judge.asked == []


def test_images_count_for_the_client(judge: FakeJudge) -> None:
    """Before they are judged; the message is let go of."""
    counted: list[int] = []
    call = FakeCall(SimpleNamespace(admit_images=counted.append))

    answer(judge, make_request(3), call)

    assert counted == [3]
    assert call.held.data == b""


def test_image_that_was_not_analysed_has_no_label() -> None:
    """It says why, as reasons that programs read."""
    outputs = {output.name: output.elements for output in make_outputs([JUDGED, UNANALYSED], [])}

    assert list(outputs) == list(NAMES)
    assert outputs["label"] == [b"stroke", b""]
    assert outputs["status"] == [b"ANALYSED", b"NOT_ANALYSED"]
    assert outputs["reasons"] == [b"", b"IMAGE_BLANK"]
    assert outputs["warnings"] == [b"", b"IMAGE_BLANK"]


def test_classes_are_sorted_and_written_as_short_as_they_are_exact() -> None:
    """Of equals the first one comes first."""
    spec = replace(SPEC, labels=("a", "b", "c"), positive_labels=("b",))

    assert classify((0.1, 0.8, 0.1), spec, 3) == [b"0.8:1:b", b"0.1:0:a", b"0.1:2:c"]
    assert classify((0.07, 0.93, 0.0), spec, 1) == [b"0.93:1:b"]
