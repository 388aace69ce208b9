"""``predict_study`` of the blocking client: files are read in the caller's thread, and gRPC's own takes them from a
short queue, so that a study of any size is never held."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition
from typing import Any

from .exchange import StudySettings, StudyTry

READ_AHEAD = 4
"""Files that are read and not yet sent: enough that disk and network work side by side."""

OpenStudy = Callable[[Iterator[bytes]], Any]


def send_study(settings: StudySettings, attempt: StudyTry, open_study: OpenStudy) -> Any:
    """Sends a study and returns the server's answer.

    Args:
        settings: of the call.
        attempt: takes note of what is sent.
        open_study: starts the call with these messages.

    Raises:
        DeadlineExceededError: the server did not get on for ``settings.timeout`` seconds.
        StrokeClientError: no file could be read; or what ``open_study`` raises.
        grpc.RpcError, grpc.FutureCancelledError: how the call has ended otherwise.
    """
    outbox = _Outbox(settings)
    call: Any = None
    try:
        for file in settings.files:
            message = attempt.load(file)
            if message is not None:
                if call is None:
                    call = open_study(outbox)
                    call.add_done_callback(lambda _: outbox.close())
                if not outbox.put(message):
                    break
            attempt.note()
        else:
            attempt.check_sent()
            outbox.finish()
        return call.result()
    finally:
        outbox.close()
        if call is not None:
            call.cancel()  # which does nothing to one that is over


class _Outbox:
    """What gRPC's thread takes the messages from."""

    def __init__(self, settings: StudySettings) -> None:
        self._settings = settings
        self._messages: deque[bytes] = deque()
        self._changed = Condition()
        self._is_finished = False
        self._is_closed = False
        self._moved_at = time.monotonic()

    def put(self, message: bytes) -> bool:
        """Adds a message as soon as there is room; returns False when the call is over.

        Raises:
            DeadlineExceededError: there was none in time.
        """
        with self._changed:
            self._wait(lambda: len(self._messages) < READ_AHEAD)
            self._messages.append(message)
            self._changed.notify_all()
            return not self._is_closed

    def finish(self) -> None:
        """Says that there is no further message, and waits until the call is over.

        Raises:
            DeadlineExceededError: it did not get on.
        """
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()
            self._wait(lambda: False)

    def close(self) -> None:
        """Says that nobody waits for the call, or that it is over."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._changed:
            self._moved_at = time.monotonic()  # gRPC asks for the next one when the last one is sent
            self._changed.notify_all()
            while not self._messages:
                if self._is_finished or self._is_closed:
                    raise StopIteration
                self._changed.wait()
            return self._messages.popleft()

    def _wait(self, is_met: Callable[[], bool]) -> None:
        """Waits until a condition is met or the call is over, for as long as messages are taken."""
        began = time.monotonic()
        while not (is_met() or self._is_closed):
            left = max(began, self._moved_at) + self._settings.timeout - time.monotonic()
            if left <= 0:
                raise self._settings.stalled()
            self._changed.wait(left)
