"""``POST /explain``: a judgement, and where in the image its evidence lies. For research, not for localisation."""

from __future__ import annotations

import base64

from starlette.responses import Response

from server.admission.call import Method
from server.admission.judge import Judge
from server.admission.status import Status
from server.core.detector import Detection
from server.errors import ImageError
from server.web.answers import describe_detection, encode_json
from server.web.bodies import make_reader
from server.web.call import HttpCall
from server.web.methods.picture import PNG

EXPLAIN = Method("POST /explain", images=1)
JSON = "application/json"


class Explainer:
    """Serves the method that explains."""

    def __init__(self, judge: Judge, most_bytes: int) -> None:
        """See ``server.web.methods.predict.Predictor``."""
        self._judge = judge
        self._most_bytes = most_bytes

    async def explain(self, call: HttpCall) -> Response | Status:
        """Explains the answer to the image of a body, or of a form: as JSON, or as the picture alone."""
        request = call.request
        accepted = [kind.partition(";")[0].strip().lower() for kind in request.headers.get("accept", "").split(",")]
        kind, write = (PNG, write_picture) if PNG in accepted else (JSON, write_explanation)
        answer = await self._judge.answer(call, make_reader(request, self._most_bytes), write, explains=True)
        return answer if isinstance(answer, Status) else Response(answer, media_type=kind)


def write_explanation(detection: Detection, request_id: str) -> bytes:
    """The judgement, and the heatmap of an image that was analysed."""
    found = detection.explanation
    return encode_json(
        {
            "prediction": describe_detection(detection, request_id),
            "overlay_png": found and base64.b64encode(found.overlay_png).decode(),
            "heatmap": found and found.heatmap.tolist(),
            "box": found and found.box._asdict(),
        }
    )


def write_picture(detection: Detection, request_id: str) -> bytes:
    """The picture alone.

    Raises:
        ImageError: reason IMAGE_NOT_ANALYSED.
    """
    if detection.explanation is None:
        reasons = " ".join(reason.message for reason in detection.reasons)
        raise ImageError("IMAGE_NOT_ANALYSED", f"There is no heatmap, for the image was not analysed. {reasons}")
    return detection.explanation.overlay_png
