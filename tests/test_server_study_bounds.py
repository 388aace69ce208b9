"""A study in the server, without a network: how much of it is taken and held, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from server.admission.boundary import stopping_server
from server.admission.inbox import Held
from server.admission.slice_work import SliceToJudge
from server.admission.status import Status
from server.core.study.answer import StudyAnswer
from server.errors import StrokeError, UnauthenticatedError, UnavailableError
from tests.dicom_files import make_enhanced, make_hu
from tests.fakes import write_model
from tests.studies import STUDY_SPEC, make_series
from tests.study_box import WINDOW, Box, give, wrap


@pytest.fixture
def box(tmp_path: Path) -> Box:
    write_model(tmp_path, STUDY_SPEC)
    return Box(tmp_path)


@pytest.mark.parametrize(
    "slices",
    [
        wrap(make_series(5)),
        [SliceToJudge(make_enhanced(np.stack([make_hu(64)] * 5)))],
        wrap([b""] * 5),
        wrap(make_series(5, ImageType=["LOCALIZER"])),
    ],
    ids=["files", "frames", "garbage", "left out"],
)
def test_study_has_a_number_of_slices(tmp_path: Path, slices: list[SliceToJudge]) -> None:
    """Whatever they are."""
    write_model(tmp_path, STUDY_SPEC)
    refusal = Box(tmp_path, {"study_slices": 4}).refuse(slices)

    assert (refusal.reason, refusal.retry_after) == ("STUDY_TOO_LARGE", None)
    assert "4 slices" in refusal.message


def test_study_has_a_number_of_bytes(tmp_path: Path) -> None:
    write_model(tmp_path, STUDY_SPEC)

    assert Box(tmp_path, {"study_mb": 1}).refuse(wrap([bytes(300_000)] * 4)).reason == "STUDY_TOO_LARGE"
    assert Box(tmp_path, {"study_mb": 1}).judge_all(wrap([bytes(300_000)] * 3)).failures


def test_few_slices_are_in_memory(box: Box) -> None:
    """No more is taken while so many are in work; each is let go of when it is through, and nothing keeps it."""
    released: list[int] = []
    watched: list[weakref.ref[SliceToJudge]] = []
    held: list[int] = []
    files = iter(make_series(30))

    async def take() -> SliceToJudge | None:
        image = next(files, None)
        held.append(len(watched) - len(released))
        if image is None:
            return None
        one = SliceToJudge(image, held=Held(b"x", released.append))
        watched.append(weakref.ref(one))
        return one

    answer = asyncio.run(box.judge(take))
    gc.collect()

    assert isinstance(answer, StudyAnswer)
    assert len(released) == 30
    assert max(held) < WINDOW
    assert [reference() for reference in watched] == [None] * 30


def test_large_slices_are_fewer_in_memory(tmp_path: Path) -> None:
    """As of streams: the bytes count, too."""
    write_model(tmp_path, STUDY_SPEC)
    box = Box(tmp_path)
    in_memory: list[int] = []
    released: list[int] = []
    files = [bytes(8_000_000)] * 6

    async def take() -> SliceToJudge | None:
        if len(in_memory) == len(files):
            return None
        in_memory.append(len(in_memory) + 1 - len(released))
        return SliceToJudge(files[0], held=Held(b"x", released.append))

    asyncio.run(box.judge(take))

    assert max(in_memory) == 2  # a quarter of 32 MiB, and the one that is above it


def test_trouble_of_the_server_ends_the_study(box: Box) -> None:
    """A part of it would be another answer. The caller may come again with all of it."""
    box.failure = UnavailableError("AUDIT_UNAVAILABLE", "No.", retry_after=1)
    outcome = asyncio.run(box.judge(give(wrap(make_series(8)))))

    assert isinstance(outcome, Status)
    assert (outcome.code, outcome.reason, outcome.retry_after_ms) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE", 1000)


async def wait_for_slices(box: Box, count: int) -> None:
    while len(box.outcomes) < count:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("error", [stopping_server(), UnauthenticatedError("TOKEN_REVOKED", "No longer.")])
def test_study_whose_slices_have_not_all_come_can_be_ended(box: Box, error: StrokeError) -> None:
    """As when the server stops. It has no answer then."""

    async def steps() -> None:
        inbox: asyncio.Queue[SliceToJudge | None] = asyncio.Queue()
        inbox.put_nowait(wrap(make_series(1))[0])
        running = asyncio.create_task(box.judge(inbox.get))
        await wait_for_slices(box, 1)
        box.places.end_all(error)
        with pytest.raises(type(error)):
            await running
        assert box.places.open == 0
        with pytest.raises(type(error)):
            await box.judge(inbox.get)

    asyncio.run(steps())


def test_study_whose_slices_have_come_is_finished(box: Box) -> None:
    """Though the server stops."""

    rest = iter(wrap(make_series(8)))
    all_came = asyncio.Event()

    async def take() -> SliceToJudge | None:
        one = next(rest, None)
        if one is None:
            all_came.set()
        return one

    async def steps() -> StudyAnswer | Status:
        running = asyncio.create_task(box.judge(take))
        await all_came.wait()
        await asyncio.sleep(0)  # the reader ends
        await asyncio.sleep(0)
        box.places.end_all(stopping_server())
        return await running

    assert isinstance(asyncio.run(steps()), StudyAnswer)


def test_nothing_is_waited_for_for_ever(tmp_path: Path) -> None:
    """A caller that sends no more loses its place."""
    write_model(tmp_path, STUDY_SPEC)
    box = Box(tmp_path, {"stream_idle_seconds": 0.05})

    async def steps() -> None:
        inbox: asyncio.Queue[SliceToJudge | None] = asyncio.Queue()
        with pytest.raises(StrokeError) as refusal:
            await box.judge(inbox.get)
        assert refusal.value.reason == "STREAM_IDLE"

    asyncio.run(steps())


def test_caller_that_goes_takes_its_study_along(box: Box) -> None:
    """What it has sent is let go of, and the place is free."""
    released: list[int] = []

    async def steps() -> None:
        inbox: asyncio.Queue[SliceToJudge | None] = asyncio.Queue()
        for file in make_series(3):
            inbox.put_nowait(SliceToJudge(file, held=Held(b"x", released.append)))
        running = asyncio.create_task(box.judge(inbox.get))
        await wait_for_slices(box, 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0.01)
        assert box.places.open == 0

    asyncio.run(steps())
    assert len(released) == 3


def test_error_of_the_transport_ends_the_study(box: Box) -> None:
    """Nothing of what came before is answered."""
    rest = iter(wrap(make_series(2)))

    async def take() -> SliceToJudge | None:
        one = next(rest, None)
        if one is None:
            raise UnavailableError("GONE", "Gone.")
        return one

    with pytest.raises(UnavailableError):
        asyncio.run(box.judge(take))


def test_caller_of_whom_the_transport_says_that_it_has_gone_has_no_answer(box: Box) -> None:
    """As over HTTP, when the connection is closed in the middle of a form."""
    rest = iter(wrap(make_series(8)))

    async def take() -> SliceToJudge | None:
        one = next(rest, None)
        if one is None:
            raise asyncio.CancelledError
        return one

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(box.judge(take))
    assert box.call.study is None


def test_studies_together_keep_a_number_of_slices(tmp_path: Path) -> None:
    """Four times that of the largest one. Who has half of them gets no more; all come back."""
    write_model(tmp_path, STUDY_SPEC)
    box = Box(tmp_path, {"study_slices": 4})
    room = box.studies.slices
    room.take_some(box.call.source, 6)
    refusal = box.refuse(wrap(make_series(4)))
    room.give_back(box.call.source, 6)

    assert (refusal.reason, refusal.retry_after) == ("TOO_MANY_SLICES", 1.0)
    box.judge_all(wrap(make_series(4)))
    box.judge_all([SliceToJudge(make_enhanced(np.stack([make_hu(64)] * 4)))])
    assert box.refuse(wrap(make_series(5))).reason == "STUDY_TOO_LARGE"
    assert room.free == 16
