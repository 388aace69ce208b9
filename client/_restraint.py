"""How often a client comes back to a server that is busy: its repetitions must not be what keeps it so.

A refused call waits for its turn, within its time. It has one

- when half of the calls are through that were on their way at the last refusal: then there is room again, as after a
  burst of more calls than the server takes;
- otherwise when the client may afford a repetition: it begins with some, each good answer earns a tenth of one, and
  time a little. So where more is asked for long than can be done, a client repeats one call in ten and not each of them
  again and again (the retry budget of gRFC A6, which counts every failure; a restart is none of these).
"""

from __future__ import annotations

import threading

_MOST = 10.0
_EARNED_BY_ANSWER = 0.1
_EARNED_BY_SECOND = 0.5

_LOOK_SECONDS = 0.25
"""How often a call that waits for its turn asks for it."""


class Restraint:
    """Gives refused calls their turns. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._afforded = _MOST
        self._seen = 0.0
        self._on_their_way = 0
        self._crowd = 0

    def begin(self) -> None:
        """A try begins."""
        with self._lock:
            self._on_their_way += 1

    def end(self, *, is_answered: bool, is_refused: bool) -> None:
        """A try has ended, with a good answer, a refusal for want of room, or neither."""
        with self._lock:
            if is_refused:
                self._crowd = self._on_their_way
            self._on_their_way -= 1
            if is_answered:
                self._afforded = min(self._afforded + _EARNED_BY_ANSWER, _MOST)

    def hold(self, now: float) -> float:
        """Returns the seconds after which a refused call is to ask again; 0: it may be made again.

        Args:
            now: seconds of ``time.monotonic``.
        """
        with self._lock:
            earned = max(0.0, now - self._seen) * _EARNED_BY_SECOND
            self._afforded = min(self._afforded + earned, _MOST)
            self._seen = now
            if self._crowd > 1 and 2 * self._on_their_way <= self._crowd:
                return 0.0
            if self._afforded < 1:
                return _LOOK_SECONDS
            self._afforded -= 1
            return 0.0
