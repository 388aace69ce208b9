"""The time that an INT8 variant may take, and what is told meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

TELL_EVERY = 5.0
"""Seconds between two lines about one step."""


class TimeIsUp(Exception):  # noqa: N818 - no error: what was found by then may do
    """The variant has taken as long as it may."""


class Watch:
    """A deadline for all steps together.

    Attributes:
        minutes: what was allowed in all.
        tell: called with what is done.
    """

    def __init__(
        self,
        minutes: float = math.inf,
        tell: Callable[[str], None] = lambda step: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.minutes, self.tell, self._clock = minutes, tell, clock
        self._end = clock() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds that are left; below zero when the time is up."""
        return self._end - self._clock()

    def check(self) -> None:
        """Raises TimeIsUp when it is."""
        if self.left <= 0:
            raise TimeIsUp

    def track(self, items: Iterable[T], total: int, step: str) -> Iterator[T]:
        """Yields the items, and tells every few seconds how many are done and how long the rest will take.

        Raises:
            TimeIsUp: between two items.
        """
        started = told = self._clock()
        for done, item in enumerate(items):
            now = self._clock()
            if now - told >= TELL_EVERY:
                rest = (now - started) / done * (total - done) if done else 0.0
                self.tell(f"{step}: {done} of {total}, about {describe_time(min(rest, self.left))} left")
                told = now
            self.check()
            yield item


def describe_time(seconds: float) -> str:
    """Such as ``40 s`` or ``3 min``."""
    return f"{max(seconds, 0):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
