"""Places of which there are so many, shared fairly."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from server.errors import BudgetExceededError, OverloadedError, StrokeError

Result = TypeVar("Result", covariant=True)

PLACE_SECONDS = 0.25
"""Hint to those for whom there was no place: calls that are in work end sooner."""

YIELDING_SECONDS = 5.0
"""A stream on which no image has been judged for so long gives its place to one that comes when there is none."""

RETRY_SECONDS = 1.0


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
        """Holds a place for ``source``. Raises as ``take_some``."""
        self.take_some(source, 1)
        try:
            yield
        finally:
            self.give_back(source, 1)

    def take_some(self, source: str, count: int) -> None:
        """Takes places for ``source``, to be given back.

        Raises:
            OverloadedError: there are not so many for it.
        """
        held = self._held[source] + count - 1
        if count > self._free or (held > 0 and held >= self._free):
            raise self._refuse()
        self._free -= count
        self._held[source] += count

    def give_back(self, source: str, count: int) -> None:
        """Gives back places of ``source``."""
        self._free += count
        self._held[source] -= count
        if not self._held[source]:
            del self._held[source]


def too_many_calls() -> OverloadedError:
    return OverloadedError("TOO_MANY_CALLS", "As many calls are open as the server accepts.", retry_after=PLACE_SECONDS)


class OpenStream(Protocol[Result]):
    """A call of many images.

    Attributes:
        last_judged: when an image of it was last judged, in seconds of ``time.monotonic``.
    """

    last_judged: float

    async def run(self) -> Result:
        """Serves it to its end. Raises what ended it."""
        ...

    def end(self, error: StrokeError) -> None:
        """Takes no more images: it ends with ``error``, unless all have come."""


class StreamPlaces:
    """The streams that are open, of which there are at most so many."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._streams: set[OpenStream[Any]] = set()
        self._end: StrokeError | None = None

    @property
    def open(self) -> int:
        """Streams that have a place."""
        return len(self._streams)

    async def run(self, stream: OpenStream[Result]) -> Result:
        """Serves a stream, in the place of one on which nothing comes if there is no other.

        Raises:
            OverloadedError: reason TOO_MANY_STREAMS.
            Exception: as the stream's ``run``.
        """
        if self._end is not None:
            raise self._end
        if len(self._streams) >= self._places:
            idlest = min(self._streams, key=lambda open_stream: open_stream.last_judged)
            if time.monotonic() - idlest.last_judged < YIELDING_SECONDS:
                raise OverloadedError(
                    "TOO_MANY_STREAMS", "As many streams are open as the server accepts.", retry_after=RETRY_SECONDS
                )
            idlest.end(BudgetExceededError("STREAM_IDLE", "The stream's place was needed; no image came on it."))
            self._streams.discard(idlest)
        self._streams.add(stream)
        try:
            return await stream.run()
        finally:
            self._streams.discard(stream)

    def end_all(self, error: StrokeError) -> None:
        """Ends all streams, each after the answers to what was taken of it, and those that still come."""
        self._end = error
        for stream in self._streams:
            stream.end(error)
