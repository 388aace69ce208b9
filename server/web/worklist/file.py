"""The gateway's file: read when it has changed, within bounds, and never believed."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from server.errors import UnavailableError
from server.machine.bounded_file import open_regular, read_open
from server.web.worklist.content import Worklist, parse_worklist

logger = logging.getLogger(__name__)

MOST_BYTES = 4 * 1024 * 1024
AGAIN_SECONDS = 15.0
"""Hint to those who find nothing."""

Stamp = tuple[int, ...]


class WorklistFile:
    """Reads the file. May be called from several threads, but not from the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: Stamp = ()
        self._found: Worklist | UnavailableError | None = None

    def read(self) -> Worklist:
        """What the file says now; parsed once for each that the gateway writes.

        Raises:
            UnavailableError: reason WORKLIST_MISSING or WORKLIST_DAMAGED.
        """
        with self._lock:
            self._look()
            if isinstance(self._found, Worklist):
                return self._found
            assert self._found is not None
            raise UnavailableError(self._found.reason, self._found.message, retry_after=AGAIN_SECONDS)

    def _look(self) -> None:
        """Reads it if it has changed; a fault is told to the log once."""
        try:
            descriptor = open_regular(self._path)
        except OSError as error:
            self._fail(missing(), (), error.strerror or str(error))
            return
        try:
            status = os.fstat(descriptor)
            stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if stamp != self._stamp or self._found is None:
                self._found = parse_worklist(read_open(descriptor, MOST_BYTES))
                self._stamp = stamp
        except (OSError, ValueError) as error:
            self._fail(damaged(), stamp, getattr(error, "strerror", None) or str(error))
        finally:
            os.close(descriptor)

    def _fail(self, failure: UnavailableError, stamp: Stamp, why: str) -> None:
        if not isinstance(self._found, UnavailableError) or stamp != self._stamp:
            logger.error("no worklist is shown: %s: %s", self._path, why)
        self._found, self._stamp = failure, stamp


def missing() -> UnavailableError:
    return UnavailableError(
        "WORKLIST_MISSING", "There is no worklist: the gateway has written none yet, or this server may not read it."
    )


def damaged() -> UnavailableError:
    return UnavailableError(
        "WORKLIST_DAMAGED", "The worklist cannot be shown: its file is damaged, too large, or not of the gateway."
    )
