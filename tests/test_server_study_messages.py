"""Messages of PredictStudy: what is taken of those that come, and how large the answer may become."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from proto import stroke_pb2 as pb
from server.admission.inbox import Held
from server.admission.slice_work import SliceToJudge
from server.api.study import encode_study, take_slice
from server.config import ServerConfig
from server.core.study.answer import answer_study
from server.core.study.facts import keep_facts
from server.core.study.rules import DEFAULT_RULES
from server.core.study.slices import Refusal, StudySlice
from server.errors import RequestError
from server.images.checks import BLANK, NO_HEAD
from tests.studies import HEADER, STUDY_SPEC

GRPC_BYTES = 4 * 1024 * 1024
"""Largest answer that gRPC's libraries take unless they are told otherwise."""

UID = "1.2.826.0.1.3680043.8.498.{:038}"
"""Of 64 characters, the longest."""


class FakeCall:
    """A call with one message, or none."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data
        self.released: list[int] = []

    async def receive(self) -> Held | None:
        return None if self.data is None else Held(self.data, self.released.append)

    async def unfold(self, held: Held, most_bytes: int) -> bytes:
        return held.data


def test_message_becomes_a_slice() -> None:
    """With its share of memory, which goes with it."""
    request = pb.PredictStudyRequest(
        image=b"i", id="1", image_sha256="a", model_name="m", model_version="v", study_id="s"
    )
    call: Any = FakeCall(request.SerializeToString())
    one = asyncio.run(take_slice(call, 1000))

    assert one is not None
    assert replace(one, held=None) == SliceToJudge(b"i", "1", "a", "m", "v", "s")
    assert one.held is not None
    assert call.released == []


def test_message_that_is_none_is_let_go_of() -> None:
    call: Any = FakeCall(b"\xff\xff")
    with pytest.raises(RequestError) as refusal:
        asyncio.run(take_slice(call, 1000))

    assert refusal.value.reason == "REQUEST_MALFORMED"
    assert call.released == [2]


def test_end_is_not_believed_at_once() -> None:
    """For gRPC says the same of a caller that has gone, a moment before it ends the call."""
    call: Any = FakeCall(None)

    async def steps() -> None:
        taking = asyncio.create_task(take_slice(call, 1000))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not taking.done()
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking

    asyncio.run(steps())


def make_slices(count: int, *, refused: bool = False, alone: bool = False) -> list[StudySlice]:
    """Slices of which there is as much to say as can be."""
    slices = []
    for number in range(count):
        header = replace(
            HEADER,
            sop_instance_uid=UID.format(number),
            series_instance_uid=UID.format(number if alone else 0),
            study_instance_uid=UID.format(0),
            position=(0.0, 0.0, 5.0 * number),
            modality="XYZ" if alone else "CT",
        )
        one = StudySlice(id=f"{number:0128}", number=number, facts=keep_facts(header, DEFAULT_RULES))
        if refused:
            one = replace(one, facts=None, refusal=Refusal("INVALID_ARGUMENT", "DICOM_RESCALE_MISSING", "x" * 200))
        elif not alone:
            one = replace(one, image_sha256=f"{number:064}", reasons=(BLANK, NO_HEAD))
        slices.append(one)
    return slices


@pytest.mark.parametrize("slices", [{}, {"refused": True}, {"alone": True}], ids=["judged", "refused", "left out"])
def test_largest_answer_can_be_received(slices: dict[str, bool]) -> None:
    """By callers who set nothing."""
    with pytest.raises(ValueError, match="study-slices must be 1 to 5000"):
        ServerConfig(study_slices=5001)
    model: Any = SimpleNamespace(spec=STUDY_SPEC, digest="0" * 64)
    answer = answer_study("s", make_slices(5000, **slices), model, DEFAULT_RULES)

    assert GRPC_BYTES / 10 < len(encode_study(answer)) < GRPC_BYTES
