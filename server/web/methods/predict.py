"""``POST /predict`` and ``POST /predict/batch``: images of HTTP, judged as those of gRPC are."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from server.admission.call import Method
from server.admission.ids import printable_id
from server.admission.judge import MOST_IMAGES, Judge
from server.admission.status import Status
from server.core.detector import Detection
from server.errors import RequestError
from server.web.answers import describe_detection, encode_detection, encode_json
from server.web.bodies import (
    BATCH_OPTIONS,
    FORM,
    join_options,
    make_reader,
    make_request,
    read_kind,
    read_options,
)
from server.web.call import HttpCall
from server.web.forms import parse_form
from server.web.problems import describe_problem

PREDICT = Method("POST /predict", images=1)
PREDICT_BATCH = Method("POST /predict/batch")
JSON = "application/json"
MOST_ID = 128 - len(f"-{MOST_IMAGES}")
"""Characters of the id of several images: theirs have a number behind it."""


class Predictor:
    """Serves the methods that judge images."""

    def __init__(self, judge: Judge, most_bytes: int) -> None:
        """Makes it.

        Args:
            judge: the way to the core.
            most_bytes: of a body.
        """
        self._judge = judge
        self._most_bytes = most_bytes

    async def predict(self, call: HttpCall) -> Response | Status:
        """Judges the image of a body, or of a form."""
        answer = await self._judge.answer(call, make_reader(call.request, self._most_bytes), encode_detection)
        return answer if isinstance(answer, Status) else Response(answer, media_type=JSON)

    async def predict_batch(self, call: HttpCall) -> Response | Status:
        """Judges the images of a form; one that cannot be judged has its error in its place."""
        request = call.request
        # What comes out of one that is compressed would be held by as many as may wait, and images are compressed.
        kind = read_kind(request.headers, (FORM,), may_compress=False)
        query = read_options(request.query_params.multi_items(), BATCH_OPTIONS)
        self._judge.check_room(call)
        async with call.take_message() as message:
            form = parse_form(message.data, kind.boundary, MOST_IMAGES)
            message.data = b""  # the images are copies
            options = join_options(query, form.options, BATCH_OPTIONS)
            names = name_images(call, options.pop("id", ""), len(form.files))
            images = [make_request(file, options | {"id": name}) for file, name in zip(form.files, names, strict=True)]
            if message.share is not None:
                message.share.admit_images(len(images))
            outcomes = await self._judge.answer_all(call, images)
        results = [describe(outcome, name) for outcome, name in zip(outcomes, names, strict=True)]
        return Response(encode_json({"id": call.request_id, "results": results}), media_type=JSON)


def name_images(call: HttpCall, request_id: str, images: int) -> list[str]:
    """The ids of the images of a call.

    Raises:
        RequestError: reason ID_INVALID.
    """
    longest = f"{request_id}-{MOST_IMAGES}"
    if printable_id(longest) != longest:
        raise RequestError("ID_INVALID", f"id must be at most {MOST_ID} printable ASCII characters, or empty.")
    name = call.name_itself(request_id)
    return [f"{name}-{number}" for number in range(1, images + 1)]


def describe(outcome: Detection | Status, request_id: str) -> dict[str, Any]:
    """The result of one image of several."""
    if isinstance(outcome, Status):
        return {"error": describe_problem(outcome, request_id)}
    return describe_detection(outcome, request_id)
