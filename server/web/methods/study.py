"""``POST /study``: a form of many files and one answer. Each file is judged as it comes and let go, so a study may be
far larger than a message. Names of files are not read: they may name patients."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from server.admission.call import Method
from server.admission.inbox import Inbox
from server.admission.slice_work import SliceToJudge
from server.admission.status import Status
from server.admission.study import MB, Studies
from server.config import ServerConfig
from server.errors import OverloadedError, RequestError
from server.web.bodies import FORM, read_kind, read_options
from server.web.call import HttpCall
from server.web.connection import PROLONG
from server.web.forms import FILE, MOST_PARTS_BESIDE, FormReader, Part
from server.web.methods.study_answer import encode_study

STUDY = Method("POST /study")
JSON = "application/json"

STUDY_OPTIONS = ("model", "version", "id")
"""Fields of the form that come before the first file, or of the query."""

SLICE_OPTIONS = {"slice_id": "id", "image_sha256": "image_sha256"}
"""Fields that say something of the file that comes after them, and what they are of a ``SliceToJudge``."""

PART_BYTES = 1024
"""Of a form, beside a file's own: its head, and the fields before it."""


@dataclass(frozen=True)
class Slice:
    """A file of a form, and what the fields before it say."""

    data: bytes
    options: dict[str, str]


class StudyCall(HttpCall):
    """A request whose form is read file by file: its messages are the files.

    Attributes:
        options: of the study; complete once the first file has come.
        slice_options: of the file that ``read`` has returned last.
    """

    def __init__(self, request: Request, method: Method, inbox: Inbox, config: ServerConfig) -> None:
        """See ``HttpCall``."""
        super().__init__(request, method, inbox, config.study_mb * MB + config.study_slices * PART_BYTES)
        self.options: dict[str, str] = {}
        self.slice_options: dict[str, str] = {}
        self._config = config
        self._reader: FormReader | None = None
        self._size = 0
        self._has_file = False
        self._pending: dict[str, str] = {}
        self._files: deque[Slice] = deque()

    def begin(self) -> None:
        """Looks at the head of the request.

        Raises:
            RequestError: as ``read_kind`` and ``read_options``.
        """
        kind = read_kind(self.request.headers, (FORM,), may_compress=False)
        self.options = read_options(self.request.query_params.multi_items(), STUDY_OPTIONS)
        most_parts = self._config.study_slices * (1 + len(SLICE_OPTIONS)) + MOST_PARTS_BESIDE
        self._reader = FormReader(kind.boundary, most_parts, self._config.most_message_bytes, self._too_large)

    async def read(self, note_size: Callable[[int], None]) -> bytes | None:
        """The next file; None at the end of the form. What has come of the one after it is as little as the server's
        buffer holds.

        Raises:
            OverloadedError: reason STUDY_TOO_LARGE.
            RequestError: as ``FormReader.feed``, and reason OPTION_INVALID.
            CancelledError: the caller has gone.
        """
        assert self._reader is not None
        while not self._files:
            if self.is_read.is_set():
                return None
            message = await self._receive()
            data = message.get("body", b"")
            self._size += len(data)
            if self._size > self._most_bytes:
                raise self._too_large()
            for part in self._reader.feed(data):
                self._take(part)
            note_size(self._reader.size)
            if not message.get("more_body"):
                self._reader.finish()
                self.is_read.set()
        self.request.scope[PROLONG]()
        found = self._files.popleft()
        self.slice_options = found.options
        return found.data

    def _take(self, part: Part) -> None:
        if part.name == FILE:
            self._has_file = True
            self._files.append(Slice(part.join(), self._pending))
            self._pending = {}
            return
        added = (part.name, part.read_option())
        if part.name in SLICE_OPTIONS:
            self._pending = read_options([*self._pending.items(), added], tuple(SLICE_OPTIONS))
        elif self._has_file and part.name in STUDY_OPTIONS:
            raise RequestError("OPTION_INVALID", f"The field {part.name!r} must come before the first file.")
        else:
            self.options = read_options([*self.options.items(), added], STUDY_OPTIONS)

    def _too_large(self) -> OverloadedError:
        return OverloadedError(
            "STUDY_TOO_LARGE",
            f"A study may have {self._config.study_slices:,} slices and {self._config.study_mb:,} MB: "
            "send fewer series of it.",
        )


class StudyFace:
    """Serves the method that judges studies."""

    def __init__(self, studies: Studies) -> None:
        self._studies = studies

    async def predict_study(self, call: HttpCall) -> Response | Status:
        """Judges the files of a form as the slices of one study."""
        assert isinstance(call, StudyCall)
        call.begin()
        answer = await self._studies.answer(call, partial(take_slice, call), encode_study)
        return answer if isinstance(answer, Status) else Response(answer, media_type=JSON)


async def take_slice(call: StudyCall) -> SliceToJudge | None:
    """The next slice of a call; None at its end. Raises as ``Call.receive``."""
    held = await call.receive()
    if held is None:
        return None
    try:
        if held.share is not None:
            held.share.add_images(1)
        image, held.data = held.data, b""
        return SliceToJudge(
            image=image,
            model_name=call.options.get("model", ""),
            model_version=call.options.get("version", ""),
            study_id=call.options.get("id", ""),
            held=held,
            **{SLICE_OPTIONS[name]: value for name, value in call.slice_options.items()},
        )
    except BaseException:
        held.release()
        raise
