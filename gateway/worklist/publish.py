"""The worklist as a file that the server shows at /worklist: written whole each time it changes, and once a minute in
any case, so that a gateway that has stopped is seen by its age. It says how many studies are not judged yet, too."""

from __future__ import annotations

import errno
import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.queue.files import PART, write_whole
from gateway.worklist.order import FOLDER, Entry, WorklistError, read_worklist

logger = logging.getLogger(__name__)

FORMAT, VERSION = "strokeserve-worklist", 1
NAME = "worklist.json"
"""In the queue, unless another place is given."""

NOT_JUDGED = ("receiving", "waiting")
"""Folders of the queue with studies that have come and are on no list yet."""

REWRITE_SECONDS = 60.0
REST = 20
"""Times as long as writing it has taken it is left alone: of a very large queue that is a twentieth of a processor."""

HOUR = 3600.0
MOST_STUDIES = 1000
MOST_BYTES = 4 * 1024 * 1024
"""The server reads no more."""

MOST_TEXT = 200
"""Characters of a field: an archive may write what it likes into a patient's identifier."""

MODE = 0o640
"""The server may be another user of the same group; the queue's folder keeps out everybody in any case."""


class WorklistFile:
    """Keeps the file up to date. For one thread.

    Args:
        queue: whose answers are listed.
        path: the file.
        hours: for how long a study is on the list.

    Raises:
        NotADirectoryError: there is no folder for it.
    """

    def __init__(self, queue: Path, path: Path, hours: float) -> None:
        if not path.parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(path.parent))
        self._queue, self._path, self._hours = queue, path, hours
        self._folders = [queue / name for name in (FOLDER, *NOT_JUDGED)]
        self._seen: list[int] = []
        self._due = self._rest_until = 0.0

    def update(self) -> None:
        """Writes the file if a study has come or was judged, or a minute has gone. Never raises."""
        began = time.monotonic()
        if began < self._rest_until:
            return
        try:
            seen = [folder.stat().st_mtime_ns for folder in self._folders]
            if seen == self._seen and began < self._due:
                return
            self._seen, self._due = seen, began + REWRITE_SECONDS
            now = time.time()
            entries = read_worklist(self._queue, since=now - self._hours * HOUR).entries
            head = {
                "format": FORMAT,
                "version": VERSION,
                "written_at": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
                "hours": self._hours,
                "waiting": sum(map(count_studies, self._folders[1:])),
            }
            write_whole(self._path, render(head, entries), MODE)
        except (OSError, WorklistError) as error:
            logger.error("the worklist cannot be written: %s", getattr(error, "strerror", None) or error)
        self._rest_until = began + REST * (time.monotonic() - began)


def count_studies(folder: Path) -> int:
    """Studies in a folder of the queue."""
    return sum(not one.name.endswith(PART) for one in folder.iterdir())


def render(head: dict[str, Any], entries: tuple[Entry, ...]) -> bytes:
    """The content of the file; of more studies than there is room for the most urgent ones."""
    studies = [describe(entry) for entry in entries[:MOST_STUDIES]]
    while True:
        content = head | {"left_out": len(entries) - len(studies), "studies": studies}
        if len(data := json.dumps(content, indent=0).encode()) <= MOST_BYTES:
            return data
        studies = studies[: len(studies) // 2]


def describe(entry: Entry) -> dict[str, Any]:
    """A study: texts, and null for what is not known."""
    texts = {name: shorten(text) or None for name, text in entry.cells.items()}
    return texts | {name: entry.fields[name] for name in ("probability", "threshold")}


def shorten(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 3]}..."
