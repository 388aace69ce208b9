"""``POST /predict`` and ``POST /predict/batch``: images of HTTP, judged as those of gRPC are."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.responses import Response

from server.admission.call import Method
from server.admission.judge import MOST_IMAGES, Judge
from server.admission.status import Status
from server.core.detector import Detection
from server.web.answers import describe_detection, encode_detection, encode_json
from server.web.bodies import (
    FORM,
    IMAGES,
    check_options,
    make_request,
    parse_form,
    read_image,
    read_kind,
)
from server.web.call import HttpCall
from server.web.problems import describe_problem

PREDICT = Method("POST /predict", images=1)
PREDICT_BATCH = Method("POST /predict/batch")
JSON = "application/json"


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
        request = call.request
        kind = read_kind(request.headers, (FORM, *IMAGES))
        options = dict(request.query_params)
        check_options(options)
        read = partial(read_image, kind, options, self._most_bytes)
        answer = await self._judge.answer(call, read, encode_detection)
        return answer if isinstance(answer, Status) else Response(answer, media_type=JSON)

    async def predict_batch(self, call: HttpCall) -> Response | Status:
        """Judges the images of a form; one that cannot be judged has its error in its place."""
        request = call.request
        kind = read_kind(request.headers, (FORM,))
        query = dict(request.query_params)
        check_options(query)
        self._judge.check_room(call)
        async with call.take_message() as message:
            form = parse_form(await call.unfold(message, self._most_bytes), kind.boundary, MOST_IMAGES)
            options = {**query, **form.options}
            name = call.name_itself(options.get("id", ""))
            images = [
                make_request(image, {**options, "id": f"{name}-{number}"}) for number, image in enumerate(form.files, 1)
            ]
            if message.share is not None:
                message.share.add_images(len(images))
            outcomes = await self._judge.answer_all(call, images)
        results = [describe(outcome, image.id) for outcome, image in zip(outcomes, images, strict=True)]
        return Response(encode_json({"id": name, "results": results}), media_type=JSON)


def describe(outcome: Detection | Status, request_id: str) -> dict[str, Any]:
    """The result of one image of several."""
    if isinstance(outcome, Status):
        return {"error": describe_problem(outcome, request_id)}
    return describe_detection(outcome, request_id)
