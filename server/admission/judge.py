"""Images of calls, judged by workers: the one way from a request to the core, for all transports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from server.admission.boundary import name_code
from server.admission.call import MESSAGE_SECONDS, Call
from server.admission.ids import new_id, printable_id
from server.admission.places import PLACE_SECONDS, FairPlaces
from server.admission.status import Status, to_status
from server.core.detector import Budget, Detection, Detector
from server.core.outcomes import Journal, Outcome
from server.core.workers import Job, waited_too_long
from server.errors import BudgetExceededError, OverloadedError, RequestError
from server.images.preprocess import Scan
from server.models.family import Route

Result = TypeVar("Result")

GRACE_SECONDS = 0.15
"""How long after its time an image that is being judged is waited for."""

MOST_IMAGES = 32
"""In one message of several."""


class ImageRequest(Protocol):
    """What a caller wants judged, and by what. Fields that it leaves out are empty."""

    @property
    def image(self) -> Scan:
        """An encoded file, or pixels."""

    @property
    def model_name(self) -> str:
        """Of the model that is to judge."""

    @property
    def model_version(self) -> str:
        """Of that model."""

    @property
    def image_sha256(self) -> str:
        """What the caller says it is."""

    @property
    def id(self) -> str:
        """How the caller calls the request."""

    @property
    def frame(self) -> int:
        """Of a DICOM file with several, from 1; 0: the only one."""


@dataclass(frozen=True)
class ImageToJudge:
    """An ``ImageRequest``, for transports that have no message of that form."""

    image: Scan
    model_name: str = ""
    model_version: str = ""
    image_sha256: str = ""
    id: str = ""
    frame: int = 0


@dataclass(frozen=True, kw_only=True)
class RoutedImage(ImageToJudge):
    """One for which it has been looked up what judges it: that does, though another version is served by then."""

    route: Route


class Judge:
    """Lets the workers of a detector judge what callers send. For one event loop."""

    def __init__(self, detector: Detector, journal: Journal, *, max_wait_seconds: float, batches: int) -> None:
        """Has nothing to judge yet.

        Args:
            detector: the core.
            journal: is told what has come of images.
            max_wait_seconds: longest time that an image of a single call may wait.
            batches: calls of several images that may be in work at the same time.
        """
        self._detector = detector
        self._journal = journal
        self._max_wait_seconds = max_wait_seconds
        self._batches = FairPlaces(batches, too_many_batches)

    def check_room(self, call: Call) -> None:
        """To be asked before a byte of a call's message is taken in. Raises as ``Detector.check_room``."""
        self._detector.check_room(call.source, min(call.seconds_left, self._max_wait_seconds))

    async def answer(
        self,
        call: Call,
        read: Callable[[bytes], ImageRequest],
        write: Callable[[Detection, str], Result],
        *,
        explains: bool = False,
    ) -> Result | Status:
        """Serves a call of one image.

        Args:
            call: the call, whose message has not been taken.
            read: what its message says; done by the worker, as is ``write``. Raises StrokeError.
            write: makes the answer of a judgement and the request's id.
            explains: its judgement is to have an explanation, see ``Detector.detect_here``.

        Raises:
            StrokeError: what keeps the image from being judged.
        """
        if explains:
            self._detector.check_explains()
        return await self.work(call, partial(self._judge_message, call=call, read=read, write=write, explains=explains))

    async def work(
        self, call: Call, do: Callable[[bytes, Budget], Result | Status], *, images: int = 0
    ) -> Result | Status:
        """Has the only message of a call worked on.

        Args:
            call: the call, whose message has not been taken.
            do: the work on the bytes of its message.
            images: how many there are that its method does not tell the gate of.

        Raises:
            StrokeError: what keeps it from being worked on.
        """
        seconds, source = min(call.seconds_left, self._max_wait_seconds), call.source
        self._detector.check_room(source, seconds)
        async with call.take_message(min(seconds, MESSAGE_SECONDS)) as message:
            if images and message.share is not None:
                message.share.admit_images(images)
            budget = Budget(seconds, lambda: call.is_wanted, call.started)
            left = budget.remaining
            judged, job = self._start(partial(do, message.data, budget), caller=source, seconds=left)
            message.data = b""  # the work holds it now
            timer = asyncio.get_running_loop().call_later(left, self._give_up, judged, job)
            try:
                return await judged
            except asyncio.CancelledError:
                self._detector.withdraw(job)
                raise
            finally:
                timer.cancel()

    def _give_up(self, judged: asyncio.Future[Result], job: Job[Result]) -> None:
        """The time of an image is up. One that is being judged is waited for a moment longer: it is nearly done, but
        the caller must hear something."""
        if self._detector.withdraw(job):
            fail(judged, waited_too_long())
        else:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, fail, judged, worked_too_long())

    def start(
        self, request: ImageRequest, call: Call, write: Callable[[Detection | Status, str], Result]
    ) -> asyncio.Future[Result]:
        """Starts the work on one image of a stream, which waits in the line of its caller. It has no time limit of its
        own: a stream that is slow is slowed down, its images are not refused for that.

        Args:
            request: of the image.
            call: the stream.
            write: makes the answer of what came of it and the request's id; done by the worker.
        """
        budget = Budget(float("inf"), lambda: call.is_wanted, time.monotonic())
        return self._start(partial(self._judge_request, request, call, budget, write), source=call.source)[0]

    def start_work(self, call: Call, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Lets a worker do ``work`` of a stream, in the line of its caller."""
        return self._start(work, source=call.source)[0]

    def judge_here(self, request: ImageRequest, call: Call, study_id: str = "") -> Detection | Status:
        """Judges one image of a stream in work that was started: it has a worker already. ``study_id`` is of the study
        that it is a slice of."""
        budget = Budget(float("inf"), lambda: call.is_wanted, time.monotonic())
        return self._judge_request(request, call, budget, take_outcome, study_id)

    async def answer_all(
        self,
        call: Call,
        requests: Sequence[ImageRequest],
        *,
        seconds: float = float("inf"),
        urgent: bool = False,
        is_stream: bool = False,
    ) -> list[Detection | Status]:
        """Judges the images of one message, of which there are at least one and not more than ``MOST_IMAGES``. One
        that is alone waits among the single ones, several among those of streams.

        Args:
            call: whose message is held meanwhile.
            requests: the images, each with an id that is its own.
            seconds: longest time that they may wait, if that is less than others may.
            urgent: see ``Detector.submit``.
            is_stream: of a call with many messages: they all wait in its line, as those of ``start`` do.

        Raises:
            OverloadedError: reason QUEUE_FULL, or TOO_MANY_BATCHES.
        """
        if is_stream:
            budget = Budget(seconds, lambda: call.is_wanted, time.monotonic())
            return await self._finish(self._start_many(call, requests, budget), budget)
        budget = Budget(min(seconds, call.seconds_left, self._max_wait_seconds), lambda: call.is_wanted, call.started)
        if len(requests) == 1:
            work = partial(self._judge_request, requests[0], call, budget, take_outcome)
            started = self._start(work, caller=call.source, seconds=budget.remaining, urgent=urgent)
            return await self._finish([started], budget)
        with self._batches.take(call.source):
            return await self._finish(self._start_many(call, requests, budget), budget)

    def _start_many(self, call: Call, requests: Sequence[ImageRequest], budget: Budget) -> list[Started]:
        works = [partial(self._judge_request, request, call, budget, take_outcome) for request in requests]
        return [self._start(work, source=call.source) for work in works]

    async def _finish(self, started: list[Started], budget: Budget) -> list[Detection | Status]:
        """Waits for what was started. What has had no worker by then is through with it at once, for its time is up."""
        futures = [future for future, _ in started]
        try:
            async with asyncio.timeout(budget.remaining):
                await asyncio.wait(futures)
        except TimeoutError:
            while budget.remaining:
                await asyncio.sleep(0.001)  # timers may be early, and then what is run below would be judged
            for future, job in started:
                if self._detector.withdraw(job):
                    job.run()  # notes that the time is up
                    future.set_result(job.take_result())
            await asyncio.wait(futures, timeout=GRACE_SECONDS)
        except asyncio.CancelledError:
            for _, job in started:
                self._detector.withdraw(job)
            raise
        return [future.result() if future.done() else to_status(worked_too_long(), "") for future in futures]

    def _judge_message(
        self,
        message: bytes,
        budget: Budget,
        call: Call,
        read: Callable[[bytes], ImageRequest],
        write: Callable[[Detection, str], Result],
        explains: bool,
    ) -> Result | Status:
        # Errors end here: one that travelled on would take this frame along, and with it the image.
        try:
            request = read(message)
            call.name_itself(request.id)
            call.detection = self._detect(request, budget, call.note_digest, explains)
            return write(call.detection, call.request_id)
        except Exception as error:
            return to_status(error, call.request_id or call.name_itself(""))

    def _judge_request(
        self,
        request: ImageRequest,
        call: Call,
        budget: Budget,
        write: Callable[[Detection | Status, str], Result],
        study_id: str = "",
    ) -> Result:
        """What comes of one image of several, with its own outcome: that it cannot be judged is an answer, too."""
        request_id = printable_id(request.id) or new_id()
        status, detection, digests = None, None, list[str]()
        try:
            detection = self._detect(request, budget, digests.append)
            answer = write(detection, request_id)
        except Exception as error:
            status = to_status(error, request_id)
            answer = write(status, request_id)
        self._journal.note(
            Outcome(
                method=call.method.name,
                request_id=request_id,
                caller=call.caller,
                code=name_code(status, call),
                reason=status.reason if status else "",
                started=budget.started,
                is_image=True,
                detection=detection,
                image_sha256="".join(digests),
                study_id=study_id,
                trace=call.trace,
            )
        )
        return answer

    def _detect(
        self, request: ImageRequest, budget: Budget, on_digest: Callable[[str], None], explains: bool = False
    ) -> Detection:
        check_id(request.id)
        return self._detector.detect_here(
            request.image,
            budget,
            model_name=request.model_name,
            model_version=request.model_version,
            image_sha256=request.image_sha256,
            frame=request.frame,
            on_digest=on_digest,
            route=request.route if isinstance(request, RoutedImage) else None,
            explains=explains,
        )

    def _start(
        self,
        work: Callable[[], Result],
        *,
        source: str | None = None,
        caller: str | None = None,
        seconds: float = float("inf"),
        urgent: bool = False,
    ) -> tuple[asyncio.Future[Result], Job[Result]]:
        """Lets a worker do ``work``. Returns what it will have come to, and the job. Raises as ``Detector.submit``."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def settle(job: Job[Result]) -> None:
            try:
                result = job.take_result()
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # asyncio need not report it, if nobody waits any more
            else:
                if not future.done():
                    future.set_result(result)

        def call_back(job: Job[Result]) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it all who waited
                loop.call_soon_threadsafe(settle, job)

        job = self._detector.submit(work, call_back, source=source, caller=caller, seconds=seconds, urgent=urgent)
        return future, job


Started = tuple[asyncio.Future[Detection | Status], Job[Detection | Status]]


def take_outcome(outcome: Detection | Status, request_id: str) -> Detection | Status:
    """For those who make the answer themselves."""
    return outcome


def check_id(request_id: str) -> None:
    """Refuses an id that can be neither answered nor logged.

    Raises:
        RequestError: reason ID_INVALID.
    """
    if request_id and not printable_id(request_id):
        raise RequestError("ID_INVALID", "id must be at most 128 printable ASCII characters, or empty.")


def fail(judged: asyncio.Future[Result], error: BudgetExceededError) -> None:
    """Ends the wait for a judgement, unless it has ended."""
    if not judged.done():
        judged.set_exception(error)


def worked_too_long() -> BudgetExceededError:
    return BudgetExceededError("DEADLINE_IN_WORK", "The deadline passed while the image was judged.")


def too_many_batches() -> OverloadedError:
    return OverloadedError(
        "TOO_MANY_BATCHES",
        "As many requests of several images are in work as the server accepts.",
        retry_after=PLACE_SECONDS,
    )
