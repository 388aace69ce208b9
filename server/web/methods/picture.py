"""``POST /render``: an image as the model sees it, in the model's own window, for those who cannot read DICOM files."""

from __future__ import annotations

from starlette.responses import Response

from server.admission.call import Method
from server.admission.picture import Pictures
from server.admission.status import Status
from server.web.bodies import make_reader
from server.web.call import HttpCall

RENDER = Method("POST /render")
"""Nothing is judged by it, so it is no image in the audit log; in the limits of its client it counts as one."""

PNG = "image/png"


class Renderer:
    """Serves the method that shows images."""

    def __init__(self, pictures: Pictures, most_bytes: int) -> None:
        """Makes it.

        Args:
            pictures: the way to the core.
            most_bytes: of a body.
        """
        self._pictures = pictures
        self._most_bytes = most_bytes

    async def render(self, call: HttpCall) -> Response | Status:
        """Shows the image of a body, or of a form."""
        answer = await self._pictures.answer(call, make_reader(call.request, self._most_bytes))
        return answer if isinstance(answer, Status) else Response(answer, media_type=PNG)
