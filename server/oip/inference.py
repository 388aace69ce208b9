"""One request of the protocol, answered by the core, whatever its transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from server.admission.call import Call
from server.admission.ids import new_id, printable_id
from server.admission.judge import Judge, RoutedImage
from server.admission.status import Status, to_status
from server.core.detector import Detection
from server.errors import RequestError, StrokeError
from server.models.family import Route
from server.models.registry import ModelRegistry
from server.oip.outputs import OutputTensor, check_wanted, describe_judgement, make_outputs
from server.oip.request import InferRequest, Parameters, read_whole_number
from server.oip.tensors import INPUT_NAME, read_images

URGENT = 1
"""The value of ``priority`` that goes before all others (Triton's schedule policy extension)."""

MICROSECOND = 1e-6

ROOM_FOR_INDEX = 120
"""Characters of a request's id that its images share."""


@dataclass(frozen=True)
class InferAnswer:
    """What came of a request."""

    request: InferRequest
    model_name: str
    model_version: str
    parameters: Parameters
    outputs: list[OutputTensor]


@dataclass(frozen=True)
class Work:
    """What a request comes to, once it has been looked at."""

    request: InferRequest
    images: list[RoutedImage]
    seconds: float
    """Longest time that they may wait."""

    urgent: bool


class Inference:
    """Answers requests. For one event loop."""

    def __init__(self, registry: ModelRegistry, judge: Judge, most_bytes: int) -> None:
        """Makes it.

        Args:
            registry: the models.
            judge: the way to the core.
            most_bytes: of a message.
        """
        self._registry = registry
        self._most_bytes = most_bytes
        self._judge = judge

    async def answer(
        self, call: Call, read: Callable[[bytes], InferRequest], *, check: Callable[[InferRequest], None] | None = None
    ) -> InferAnswer | Status:
        """Serves a call of one request.

        Args:
            call: the call, whose message has not been taken.
            read: what its message says, which is not compressed. Raises RequestError.
            check: what its transport must know of it before anything is judged. Raises RequestError.

        Raises:
            StrokeError: what keeps the images from being judged.
        """
        self._judge.check_room(call)
        async with call.take_message() as message:
            request = read(await call.unfold(message, self._most_bytes))
            call.name_itself(request.id)
            if check is not None:
                check(request)
            work = self._prepare(request, call.request_id)
            del request  # the work holds its images now, and nobody the rest of it
            if message.share is not None:
                message.share.admit_images(len(work.images))
            return await self._do(call, work)

    def start(self, call: Call, request: InferRequest) -> asyncio.Future[InferAnswer | Status]:
        """Starts the work on one request of a stream. That it fails is an answer, too."""
        request_id = printable_id(request.id) or new_id()
        try:
            work = self._prepare(request, request_id)
        except StrokeError as error:
            failed: asyncio.Future[InferAnswer | Status] = asyncio.get_running_loop().create_future()
            failed.set_result(to_status(error, request_id))
            return failed
        return asyncio.ensure_future(self._do_one_of_many(call, work, request_id))

    async def _do_one_of_many(self, call: Call, work: Work, request_id: str) -> InferAnswer | Status:
        try:
            return await self._do(call, work, is_stream=True)
        except Exception as error:
            return to_status(error, request_id)

    def _prepare(self, request: InferRequest, request_id: str) -> Work:
        """Looks at all of a request before anything is judged. Raises RequestError and ModelNotFoundError."""
        if request.id and not printable_id(request.id):
            raise RequestError("ID_INVALID", "id must be at most 128 printable ASCII characters, or empty.")
        # One model for all of them, be it another one that is served by the time they have a worker.
        choice = self._registry.find(request.model_name, request.model_version).main
        spec = choice.served.model.spec
        scans = read_images(request)
        check_wanted(request.outputs)
        priority = read_whole_number(request.parameters, "priority", 0, "a whole number from 0")
        timeout = read_whole_number(request.parameters, "timeout", 0, "a whole number of microseconds from 0")
        ids = [request_id] if len(scans) == 1 else name_images(request_id, len(scans))
        return Work(
            request=replace(request, inputs=()),  # the images have been taken from them
            images=[
                RoutedImage(scan, spec.name, spec.version, id=image_id, route=Route(choice))
                for scan, image_id in zip(scans, ids, strict=True)
            ],
            seconds=timeout * MICROSECOND if timeout else float("inf"),
            urgent=priority == URGENT,
        )

    async def _do(self, call: Call, work: Work, *, is_stream: bool = False) -> InferAnswer | Status:
        outcomes = await self._judge.answer_all(
            call, work.images, seconds=work.seconds, urgent=work.urgent, is_stream=is_stream
        )
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Status):
                return blame_element(outcome, index, len(outcomes))
        detections = [outcome for outcome in outcomes if isinstance(outcome, Detection)]
        spec = detections[0].model.spec
        outputs = make_outputs(detections, work.request.outputs)
        return InferAnswer(work.request, spec.name, spec.version, describe_judgement(detections[0]), outputs)


def name_images(request_id: str, number: int) -> Sequence[str]:
    """An id for each image of a request."""
    return [f"{request_id[:ROOM_FOR_INDEX]}/{index}" for index in range(number)]


def blame_element(status: Status, index: int, number: int) -> Status:
    """Says which element of the input it was, where there are several."""
    if number == 1:
        return status
    return replace(status, message=f"Element {index} of input {INPUT_NAME!r} (of {number}): {status.message}")
