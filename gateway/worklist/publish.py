"""The worklist as a file that the server shows at /worklist: written whole each time it changes, and once a minute in
any case, so that a gateway that has stopped is seen by its age."""

from __future__ import annotations

import errno
import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.queue.files import write_whole
from gateway.worklist.order import FOLDER, Entry, WorklistError, read_worklist

logger = logging.getLogger(__name__)

FORMAT, VERSION = "strokeserve-worklist", 1
NAME = "worklist.json"
"""In the queue, unless another place is given."""

REWRITE_SECONDS = 60.0
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
        self._seen, self._due = 0, 0.0

    def update(self) -> None:
        """Writes the file if a study has come, or a minute has gone. Never raises."""
        try:
            seen = (self._queue / FOLDER).stat().st_mtime_ns
            if seen == self._seen and time.monotonic() < self._due:
                return
            self._seen, self._due = seen, time.monotonic() + REWRITE_SECONDS
            now = time.time()
            entries = read_worklist(self._queue, since=now - self._hours * HOUR).entries
            write_whole(self._path, render(entries, self._hours, datetime.fromtimestamp(now, UTC)), MODE)
        except (OSError, WorklistError) as error:
            logger.error("the worklist cannot be written: %s", getattr(error, "strerror", None) or error)


def render(entries: tuple[Entry, ...], hours: float, now: datetime) -> bytes:
    """The content of the file; of more studies than there is room for the most urgent ones."""
    studies = [describe(entry) for entry in entries[:MOST_STUDIES]]
    while True:
        head = {"format": FORMAT, "version": VERSION, "written_at": now.isoformat(timespec="seconds"), "hours": hours}
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
