"""Pictures of what a model sees, made by workers with the bounds of judgements, for all transports."""

from __future__ import annotations

from collections.abc import Callable

from server.admission.call import Call
from server.admission.judge import ImageRequest, Judge, check_id
from server.admission.status import Status, to_status
from server.core.detector import Budget, Detector


class Pictures:
    """Shows images as models see them. For one event loop."""

    def __init__(self, detector: Detector, judge: Judge) -> None:
        self._detector = detector
        self._judge = judge

    async def answer(self, call: Call, read: Callable[[bytes], ImageRequest]) -> bytes | Status:
        """Serves a call of one image, by a PNG file. It counts among the images that its client has in work.

        Args:
            call: the call, whose message has not been taken.
            read: what its message says; done by the worker. Raises StrokeError.

        Raises:
            StrokeError: what keeps the image from being looked at.
        """

        def do(message: bytes, budget: Budget) -> bytes | Status:
            try:
                request = read(message)
                check_id(request.id)
                call.name_itself(request.id)
                return self._detector.render_here(
                    request.image,
                    budget,
                    model_name=request.model_name,
                    model_version=request.model_version,
                    image_sha256=request.image_sha256,
                    frame=request.frame,
                )
            except Exception as error:  # one that travelled on would take this frame along, and with it the image
                return to_status(error, call.request_id or call.name_itself(""))

        return await self._judge.work(call, do, images=1)
