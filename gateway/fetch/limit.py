"""How long an archive is waited for, and until when anybody wants its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

from pynetdicom.association import Association

LOOK_SECONDS = 0.25
GRACE_SECONDS = 5.0
"""For an archive to stop when it is told to; after that the association is aborted."""

MESSAGE_ID = 1


class Trouble(StrEnum):
    """Why a fetch has not brought everything."""

    NO_ARCHIVE = "NO_ARCHIVE"
    ARCHIVE_AWAY = "ARCHIVE_AWAY"
    ARCHIVE_REFUSED = "ARCHIVE_REFUSED"
    NOT_FOUND = "NOT_FOUND"
    INCOMPLETE = "INCOMPLETE"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


class FetchError(Exception):
    """The archive was not asked to the end; the message says why, and names nobody.

    Attributes:
        trouble: the kind of it.
    """

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble


class Limit:
    """Ends what takes too long, or is not wanted any more.

    Args:
        seconds: from now on.
        is_wanted: whether somebody waits for it; asked from several threads.
    """

    def __init__(self, seconds: float, is_wanted: Callable[[], bool]) -> None:
        self._seconds, self._end, self._is_wanted = seconds, time.monotonic() + seconds, is_wanted

    @property
    def rest(self) -> float:
        """Seconds that are left; a little at least, since libraries take 0 for no limit."""
        return max(self._end - time.monotonic(), 0.1)

    @property
    def is_over(self) -> bool:
        """Whether it is to end."""
        return time.monotonic() >= self._end or not self._is_wanted()

    def check(self) -> None:
        """Raises when it is over.

        Raises:
            FetchError: why.
        """
        if not self._is_wanted():
            raise FetchError(Trouble.CANCELLED, "it was cancelled")
        if time.monotonic() >= self._end:
            raise FetchError(Trouble.TIMED_OUT, f"it took longer than {self._seconds:g} s (--fetch-seconds)")


@contextmanager
def watch(association: Association, model: str, limit: Limit) -> Iterator[None]:
    """Has the other side stop, by C-CANCEL and then by an abort, when the time is over in the middle of an answer."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(LOOK_SECONDS):
            if limit.is_over:
                with suppress(RuntimeError, ValueError):  # there is no association any more
                    association.send_c_cancel(MESSAGE_ID, query_model=model)
                if not done.wait(GRACE_SECONDS):
                    association.abort()
                    association.dimse.msg_queue.put((None, None))  # whoever waits for an answer is not told otherwise
                return

    watcher = threading.Thread(target=run, name="fetch-limit", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
