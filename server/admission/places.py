"""Places of which there are so many, shared fairly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.errors import OverloadedError

PLACE_SECONDS = 0.25
"""Hint to those for whom there was no place: calls that are in work end sooner."""


class FairPlaces:
    """A number of places, of which no source gets more than it leaves free for others. For one event loop.

    A source is a client where there is a gate, otherwise a connection. The rule of dynamic thresholds (Choudhury and
    Hahne 1998): the first source gets at most half of the places, the next half of the rest, and so on. So one that
    takes all it can get never takes the last one.
    """

    def __init__(self, places: int, refuse: Callable[[], OverloadedError]) -> None:
        """Has all places free.

        Args:
            places: in all, at least 1.
            refuse: makes the error for those who get none.
        """
        self._free = places
        self._refuse = refuse
        self._held: Counter[str] = Counter()

    @property
    def free(self) -> int:
        """Places that nobody holds."""
        return self._free

    @contextmanager
    def take(self, source: str) -> Iterator[None]:
        """Holds a place for ``source``.

        Raises:
            OverloadedError: there is none for it.
        """
        held = self._held[source]
        if not self._free or (held > 0 and held >= self._free):
            raise self._refuse()
        self._free -= 1
        self._held[source] += 1
        try:
            yield
        finally:
            self._free += 1
            self._held[source] -= 1
            if not self._held[source]:
                del self._held[source]


def too_many_calls() -> OverloadedError:
    return OverloadedError("TOO_MANY_CALLS", "As many calls are open as the server accepts.", retry_after=PLACE_SECONDS)
