"""``GET /worklist``: the page, and the same as JSON and CSV for programs."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from email.utils import format_datetime

from starlette.responses import Response

from server.admission.call import WORKLIST, Method
from server.config import ServerConfig
from server.errors import DisabledError, RequestError
from server.process.cells import write_csv
from server.web.answers import encode_json
from server.web.bodies import read_options
from server.web.call import HttpCall
from server.web.origin import check_host
from server.web.pages.worklist import REFRESH_SECONDS, is_old, make_list_page, render_list
from server.web.worklist.content import COLUMNS, Worklist
from server.web.worklist.file import WorklistFile

PAGE, JSON, CSV = (Method(f"GET /worklist{kind}", WORKLIST) for kind in ("", ".json", ".csv"))
OPTIONS = ("refresh", "id")
REFRESH = "off|[1-9][0-9]{0,2}"
"""How often the page may look again: never, or in 1 to 999 seconds."""


class WorklistFace:
    """Serves the methods that show the worklist."""

    def __init__(self, config: ServerConfig) -> None:
        self._file = None if config.worklist is None else WorklistFile(config.worklist)
        self._is_open = config.tokens is None and config.tls_cert is None
        self._reading = asyncio.Lock()  # so that a disk that hangs holds one thread
        self._drawn: tuple[Worklist, str] | None = None

    async def show_page(self, call: HttpCall) -> Response:
        """As HTML."""
        seconds = read_refresh(read_options(call.request.query_params.multi_items(), OPTIONS).get("refresh", ""))
        worklist, studies = await self._read(call)
        return self._date(make_list_page(worklist, studies, datetime.now(UTC), seconds), worklist)

    async def give_json(self, call: HttpCall) -> Response:
        """As JSON, with its age."""
        worklist, _ = await self._read(call)
        age = worklist.find_age(datetime.now(UTC))
        content = {
            "written_at": worklist.written_at.isoformat(),
            "age_seconds": round(age, 1),
            "is_old": is_old(age),
            "hours": worklist.hours,
            "waiting": worklist.waiting,
            "left_out": worklist.left_out,
            "counts": worklist.count(),
            "studies": worklist.studies,
        }
        return self._date(Response(encode_json(content), media_type="application/json"), worklist)

    async def give_csv(self, call: HttpCall) -> Response:
        """As CSV with a header, safe to open in a spreadsheet."""
        worklist, _ = await self._read(call)
        rows = ([show_cell(study[name]) for name in COLUMNS] for study in worklist.studies)
        return self._date(Response(write_csv(COLUMNS, rows), media_type="text/csv"), worklist)

    async def _read(self, call: HttpCall) -> tuple[Worklist, str]:
        """The list, and its studies as HTML.

        Raises:
            ForbiddenError: reason CROSS_SITE.
            DisabledError: reason WORKLIST_DISABLED.
            UnavailableError: as ``WorklistFile.read``.
        """
        if self._is_open:
            check_host(call.request.headers.get("host", ""))
        if self._file is None:
            raise DisabledError(
                "WORKLIST_DISABLED", "This server has no worklist: whoever runs it has not started it with --worklist."
            )
        async with self._reading:
            return await asyncio.to_thread(self._draw, self._file)

    def _draw(self, file: WorklistFile) -> tuple[Worklist, str]:
        worklist = file.read()
        if self._drawn is None or self._drawn[0] is not worklist:
            self._drawn = worklist, render_list(worklist)
        return self._drawn

    @staticmethod
    def _date(response: Response, worklist: Worklist) -> Response:
        response.headers["last-modified"] = format_datetime(worklist.written_at.astimezone(UTC), usegmt=True)
        return response


def read_refresh(text: str) -> int:
    """Seconds after which the page looks again; 0: never.

    Raises:
        RequestError: reason OPTION_INVALID.
    """
    if text and not re.fullmatch(REFRESH, text):
        raise RequestError("OPTION_INVALID", "refresh must be off, or whole seconds from 1 to 999.")
    return 0 if text == "off" else int(text or REFRESH_SECONDS)


def show_cell(value: str | float | None) -> str:
    """A field as text; empty where it is not known."""
    return "" if value is None else str(value)
