"""Studies, judged slice by slice as they come: the one way from many slices to one answer, for all transports.

A transport has a ``Studies`` (one a server, made by ``server.lifecycle.app``) and hands slices over one by one:

    answer = await studies.answer(call, take, write)

``call`` is the call; its method counts as that of a stream (``Method("POST /study")``, no ``images``). ``take`` is
awaited for the next ``SliceToJudge`` whenever there is room for one more, and returns None when all have come; what it
raises ends the study. Model, version and the study's id are those of the first slice. A slice whose bytes are in memory
of the inbox brings its ``Held``, which is released once the slice is through; a transport that holds the bytes of all
slices together brings None, and holds them until it has its answer. ``write`` makes the transport's own answer of a
``StudyAnswer`` (``server.core.study.answer``), in a worker. What comes back is that, or a ``Status``. Errors are raised
as by other methods: ``RequestError`` (REQUEST_MALFORMED: no slice came; ID_INVALID: of the study),
``ModelNotFoundError``, ``IncapableModelError`` (MODEL_WITHOUT_STUDIES), ``OverloadedError`` (TOO_MANY_STREAMS,
STUDY_TOO_LARGE, TOO_MANY_SLICES), ``BudgetExceededError`` (STREAM_IDLE), ``UnavailableError`` (SERVER_STOPPING).

Of a slice nothing stays but what its header says in numbers, its probability and its SHA-256; its bytes are gone once
it was judged. What the rules of series exclude by the header alone is not judged at all. For one event loop.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from server.admission.call import Call
from server.admission.ids import printable_id
from server.admission.judge import Judge
from server.admission.places import RETRY_SECONDS, FairPlaces, StreamPlaces
from server.admission.slice_work import SliceToJudge, SliceWork, release
from server.admission.status import Status
from server.config import ServerConfig
from server.core.capacity import STREAM_IMAGES, STREAM_SHARE, find_message_bytes, find_most_study_slices
from server.core.detector import Detector
from server.core.study.answer import StudyAnswer, answer_study
from server.core.study.rules import SeriesRules
from server.core.study.slices import StudySlice
from server.errors import (
    BudgetExceededError,
    IncapableModelError,
    OverloadedError,
    RequestError,
    StrokeError,
)

Result = TypeVar("Result")

MB = 1_000_000


class Studies:
    """Judges studies, each in a place of a stream."""

    def __init__(
        self, detector: Detector, judge: Judge, places: StreamPlaces, config: ServerConfig, rules: SeriesRules
    ) -> None:
        """Has none in work.

        Args:
            detector: the core.
            judge: the way to it.
            places: of streams, one of which a study takes.
            config: how much a study may be, and how long nothing may come.
            rules: what a series must be.
        """
        self.detector, self.judge, self.config, self.rules = detector, judge, config, rules
        self._places = places
        self.slices = FairPlaces(find_most_study_slices(config), too_many_slices)
        """What is kept of slices, of all studies together."""

    async def answer(
        self,
        call: Call,
        take: Callable[[], Awaitable[SliceToJudge | None]],
        write: Callable[[StudyAnswer], Result],
    ) -> Result | Status:
        """Judges the study that a call brings: see above."""
        study = OpenStudy(self, call, take, write)
        if call.permit is not None:
            call.permit.on_end = study.end
        return await self._places.run(study)


class OpenStudy(Generic[Result]):
    """One study. See ``server.admission.places.OpenStream``.

    Attributes:
        last_judged: when a slice of it came to something, in seconds of ``time.monotonic``.
    """

    def __init__(
        self,
        studies: Studies,
        call: Call,
        take: Callable[[], Awaitable[SliceToJudge | None]],
        write: Callable[[StudyAnswer], Result],
    ) -> None:
        detector, config = studies.detector, studies.config
        self._studies, self._call, self._take, self._write = studies, call, take, write
        self._window = STREAM_IMAGES * detector.plan.workers
        self._window_bytes = find_message_bytes(config) // STREAM_SHARE
        self._source = call.source
        self._begun: SliceWork | None = None
        self._slices: list[StudySlice] = []
        self._files = self._count = self._bytes = 0
        self._work: set[asyncio.Task[None]] = set()
        self._work_bytes = 0
        self._room = asyncio.Event()
        self._end: BaseException | Status | None = None
        self._reader: asyncio.Task[None] | None = None
        self.last_judged = time.monotonic()

    async def run(self) -> Result | Status:
        """Serves the study to its end. Raises what ended it."""
        self._reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait((self._reader,))
            if self._reader.cancelled() and self._end is None:
                raise asyncio.CancelledError("the caller has gone")  # which is no end of the slices
            while self._work and self._end is None:
                await asyncio.wait(self._work, return_when=asyncio.FIRST_COMPLETED)
            if isinstance(self._end, BaseException):
                raise self._end
            if self._end is not None:
                return self._end
            return await self._studies.judge.start_work(self._call, self._answer)
        finally:
            self._reader.cancel()
            for task in self._work:
                task.cancel()
            self._studies.slices.give_back(self._source, self._count)

    def end(self, error: StrokeError) -> None:
        """See ``OpenStream``. A study of which all slices have come is finished."""
        if self._reader is not None and not self._reader.done():
            self._stop(error)

    def _stop(self, end: BaseException | Status) -> None:
        self._end = self._end or end
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        """Takes slices as long as few are in work."""
        try:
            while (one := await self._take_next()) is not None:
                self._start(one)
                del one
                while len(self._work) >= self._window or self._work_bytes >= self._window_bytes:
                    self._room.clear()
                    await self._room.wait()
            if self._begun is None:
                raise RequestError("REQUEST_MALFORMED", "The study has no slices: send at least one.")
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold a slice, and this holds the error
            self._end = self._end or error

    async def _take_next(self) -> SliceToJudge | None:
        idle_seconds = self._studies.config.stream_idle_seconds
        try:
            async with asyncio.timeout(idle_seconds):
                return await self._take()
        except TimeoutError:
            raise BudgetExceededError("STREAM_IDLE", f"No slice came for {idle_seconds:g} s.") from None

    def _start(self, one: SliceToJudge) -> None:
        """Starts the work on a file."""
        try:
            work = self._begun = self._begun or self._begin(one)
            self._files += 1
            self._note_size(1, len(one.image))
        except BaseException:
            release(one)
            raise
        task = asyncio.create_task(self._judge(one, self._files, work))
        self._work.add(task)
        self._work_bytes += len(one.image)
        task.add_done_callback(partial(self._finish, len(one.image)))

    def _finish(self, size: int, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._work_bytes -= size
        self.last_judged = time.monotonic()
        self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            traceback.clear_frames(error.__traceback__)
            self._stop(error)

    def _begin(self, first: SliceToJudge) -> SliceWork:
        """Settles id and model of the study: that model judges all of it, though another one is served by then."""
        if first.study_id and not printable_id(first.study_id):
            raise RequestError("ID_INVALID", "study_id must be at most 128 printable ASCII characters, or empty.")
        self._call.name_itself(first.study_id)
        # Without the canary, which answers a share of the images: one study has one model.
        detector = self._studies.detector
        choice = detector.registry.find(first.model_name, first.model_version).main
        if not choice.served.model.spec.study_top_k:
            raise IncapableModelError(
                "MODEL_WITHOUT_STUDIES",
                "The model judges single images and no studies: its file does not say how scores of slices make one.",
            )
        return SliceWork(self._studies.judge, self._call, detector.limits, self._studies.rules, choice)

    def _note_size(self, slices: int, size: int) -> None:
        config = self._studies.config
        self._bytes += size
        if self._count + slices > config.study_slices or self._bytes > config.study_mb * MB:
            raise OverloadedError(
                "STUDY_TOO_LARGE",
                f"A study may have {config.study_slices:,} slices and {config.study_mb:,} MB: send fewer series of it.",
            )
        self._studies.slices.take_some(self._source, slices)
        self._count += slices

    async def _judge(self, one: SliceToJudge, number: int, work: SliceWork) -> None:
        start = partial(self._studies.judge.start_work, self._call)
        try:
            seen = await start(partial(work.look, one, number))
            self._keep(seen.slices)
            more = len(seen.slices) + len(seen.frames) - 1
            if more > 0:
                self._note_size(more, 0)
            if one.held is not None and one.held.share is not None and seen.frames:
                one.held.share.add_images(more)
            for begin in range(0, len(seen.frames), self._window):
                frames = seen.frames[begin : begin + self._window]
                self._keep(await asyncio.gather(*(start(partial(work.judge, one, number, each)) for each in frames)))
        finally:
            release(one)

    def _keep(self, slices: Sequence[StudySlice]) -> None:
        for one in slices:
            if one.refusal is not None and one.refusal.retry_after_ms:
                # The server's own trouble, which passes. An answer without this slice would be another one.
                refusal = one.refusal
                self._stop(Status(refusal.code, refusal.reason, refusal.message, refusal.retry_after_ms))
        self._slices += slices

    def _answer(self) -> Result:
        """Done by a worker, for it takes some milliseconds."""
        assert self._begun is not None
        answer = answer_study(self._call.request_id, self._slices, self._begun.model, self._studies.rules)
        self._call.study = answer
        return self._write(answer)


def too_many_slices() -> OverloadedError:
    return OverloadedError(
        "TOO_MANY_SLICES",
        "The studies that are in work have as many slices as the server keeps: send this one again later.",
        retry_after=RETRY_SECONDS,
    )
