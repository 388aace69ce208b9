"""A line in which many sources wait, and whose turn it is."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")

NOBODY = object()


class FairLine(Generic[Item]):
    """Items of many sources, which take turns: a long line of one does not hold up the others.

    Who has just been served goes behind all who are there when the next one is taken. So a source that comes back with
    one item after each answer does not wait for two turns of one that always has some.
    """

    def __init__(self) -> None:
        """Has nobody in it."""
        self._lines: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        self._served: Hashable = NOBODY
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def count(self, source: Hashable) -> int:
        """Items of one source."""
        return len(self._lines.get(source, ()))

    def count_before(self, source: Hashable) -> int:
        """Items that would be taken before another one of ``source``, or some more."""
        own = self.count(source)
        others = len(self._lines) - (own > 0)
        return min(self._count, own + others * (own + 1))

    def add(self, source: Hashable, item: Item) -> None:
        """Puts an item behind those of its source."""
        self._lines.setdefault(source, deque()).append(item)
        self._count += 1

    def take(self) -> Item:
        """The next item; there must be one."""
        lines = self._lines
        if self._served in lines:
            lines.move_to_end(self._served)
        source = self._served = next(iter(lines))
        item = lines[source].popleft()
        self._count -= 1
        if not lines[source]:
            del lines[source]
        return item

    def remove(self, source: Hashable, item: Item) -> bool:
        """Takes an item out of its line. False: it is not there."""
        line = self._lines.get(source, ())
        if item not in line:
            return False
        assert isinstance(line, deque)
        line.remove(item)
        self._count -= 1
        if not line:
            del self._lines[source]
        return True
