"""One image of a call, judged by a worker: the one way from a request to the core, for single calls and for streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from proto import stroke_pb2
from server.api.calls import Call
from server.api.ids import new_id, printable_id
from server.api.interceptors import Status, name_code, to_status
from server.api.messages import Answer, inflate, parse, to_response
from server.config import ServerConfig
from server.core.detector import Budget, Detection, Detector
from server.core.outcomes import Journal, Outcome
from server.core.workers import Job, waited_too_long
from server.errors import RequestError

Result = TypeVar("Result")


class Judge:
    """Lets the workers of a detector judge what callers send. For one event loop."""

    def __init__(self, detector: Detector, config: ServerConfig, journal: Journal) -> None:
        self._detector = detector
        self._journal = journal
        self._max_wait_seconds = config.max_wait_seconds
        self._most_bytes = config.most_message_bytes

    async def answer(self, call: Call) -> bytes | Status:
        """Serves a call of one image.

        Raises:
            StrokeError: what keeps the image from being judged.
        """
        self._detector.check_room()  # before a byte of it is taken in
        seconds = min(call.seconds_left, self._max_wait_seconds)
        async with call.take_message() as message:
            budget = Budget(seconds, lambda: call.is_wanted, call.started)
            judged, job = self._start(partial(self._judge_message, message.data, budget, call))
            message.data = b""  # the work holds it now
            try:
                async with asyncio.timeout(budget.remaining):
                    return await asyncio.shield(judged)
            except TimeoutError:
                if self._detector.withdraw(job):
                    raise waited_too_long() from None
                return await judged  # what has been started is finished
            except asyncio.CancelledError:
                self._detector.withdraw(job)
                raise

    def start(self, request: stroke_pb2.PredictRequest, call: Call) -> asyncio.Future[Answer]:
        """Starts the work on one image of a stream, which waits in the line of its call."""
        return self._start(partial(self._judge_request, request, call, time.monotonic()), source=call)[0]

    def _judge_message(self, message: bytes, budget: Budget, call: Call) -> bytes | Status:
        # Errors end here: one that travelled on would take this frame along, and with it the image.
        try:
            request = parse(stroke_pb2.PredictRequest, inflate(message, self._most_bytes))
            call.name_itself(request.id)
            call.detection = self._detect(request, budget, call.note_digest)
            answer: bytes = to_response(call.detection, call.request_id).SerializeToString()
        except Exception as error:
            return to_status(error, call.request_id or call.name_itself(""))
        return answer

    def _judge_request(self, request: stroke_pb2.PredictRequest, call: Call, arrived: float) -> Answer:
        """One answer of a stream, with a line in the log: an image that cannot be judged becomes an answer too."""
        # No time limit of its own: a stream that is slow is slowed down, its images are not refused for that.
        budget = Budget(float("inf"), lambda: call.is_wanted, arrived)
        request_id = printable_id(request.id) or new_id()
        status, detection, digests = None, None, list[str]()
        try:
            detection = self._detect(request, budget, digests.append)
            answer = Answer(response=to_response(detection, request_id))
        except Exception as error:
            status = to_status(error, request_id)
            answer = Answer(
                error=stroke_pb2.PredictError(
                    id=request_id,
                    code=status.code.value[0],
                    reason=status.reason,
                    message=status.message,
                    retry_after_ms=status.retry_after_ms,
                )
            )
        self._journal.note(
            Outcome(
                method=call.method,
                request_id=request_id,
                caller=call.caller,
                code=name_code(status, call),
                reason=status.reason if status else "",
                started=arrived,
                is_image=True,
                detection=detection,
                image_sha256="".join(digests),
                trace=call.trace,
            )
        )
        return answer

    def _detect(
        self, request: stroke_pb2.PredictRequest, budget: Budget, on_digest: Callable[[str], None]
    ) -> Detection:
        if request.id and not printable_id(request.id):
            raise RequestError("ID_INVALID", "id must be at most 128 printable ASCII characters, or empty.")
        return self._detector.detect_here(
            request.image,
            budget,
            model_name=request.model_name,
            model_version=request.model_version,
            image_sha256=request.image_sha256,
            on_digest=on_digest,
        )

    def _start(
        self, work: Callable[[], Result], *, source: Call | None = None
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

        return future, self._detector.submit(work, call_back, source=source)
