"""The slices of one series, in their order: where each lies, which show the same, and where one is missing."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from server.core.study.geometry import (
    SAME_PLACE_MM,
    find_gaps,
    find_mean_normal,
    find_spacing,
    find_tilt,
    project,
)
from server.core.study.slices import StudySlice, order_by_id


@dataclass(frozen=True, slots=True)
class PlacedSlice:
    """A slice in its place."""

    slice: StudySlice
    position: float | None
    """Along the normal, in millimetres, growing towards the head; None: it is not known."""

    is_duplicate: bool
    """Whether another slice shows the same, and counts."""


class Stack:
    """A series in order, from the feet to the head; slices that do not say where they lie come last, by their ids.

    Attributes:
        slices: all of them.
    """

    def __init__(self, slices: Iterable[StudySlice]) -> None:
        slices = sorted(slices, key=order_by_id)  # what is alike in all else stays in this order
        self._normal = find_mean_normal([one.facts.normal for one in slices if one.facts and one.facts.normal])
        positions = {id(one): self._find_position(one) for one in slices}
        duplicates = find_duplicates(slices, positions)
        placed = [PlacedSlice(one, positions[id(one)], id(one) in duplicates) for one in slices]
        placed.sort(key=lambda one: (one.position is None, one.position or 0.0))
        self.slices = tuple(placed)

    def _find_position(self, one: StudySlice) -> float | None:
        if self._normal is None or one.facts is None or one.facts.place is None:
            return None
        return project(one.facts.place, self._normal)

    @cached_property
    def counted(self) -> tuple[PlacedSlice, ...]:
        """Each place once."""
        return tuple(one for one in self.slices if not one.is_duplicate)

    @cached_property
    def _located(self) -> tuple[tuple[float, StudySlice], ...]:
        return tuple((one.position, one.slice) for one in self.counted if one.position is not None)

    @property
    def is_ordered(self) -> bool:
        """Whether all slices say where they lie."""
        return all(one.position is not None for one in self.slices)

    @property
    def analysed(self) -> list[StudySlice]:
        """What counts for the score."""
        return [one.slice for one in self.counted if one.slice.is_analysed]

    @cached_property
    def spacing(self) -> float:
        """The median distance of neighbours, in millimetres; 0: not known."""
        return find_spacing([position for position, _ in self._located])

    @cached_property
    def thickness(self) -> float:
        """Of the slices, in millimetres: the median of what they state, otherwise their distance; 0: not known."""
        stated = sorted(one.slice.facts.thickness for one in self.counted if one.slice.facts)
        return (stated[len(stated) // 2] if stated else 0.0) or self.spacing

    @property
    def extent(self) -> float:
        """How much of the body it shows, in millimetres."""
        return self._located[-1][0] - self._located[0][0] + self.thickness if self._located else 0.0

    @cached_property
    def tilt(self) -> float:
        """Of the gantry, in degrees; what the files state counts where their places do not tell."""
        located = [one for _, one in self._located]
        if self._normal is not None and len(located) > 1:
            (first, last) = (one.facts.place for one in (located[0], located[-1]) if one.facts)
            assert first is not None
            assert last is not None
            return find_tilt(self._normal, first, last)
        return max((abs(one.slice.facts.gantry_tilt) for one in self.counted if one.slice.facts), default=0.0)

    @cached_property
    def gaps(self) -> list[float]:
        """Distances within which something is not shown, in millimetres."""
        thicknesses = [one.facts.thickness if one.facts else 0.0 for _, one in self._located]
        return find_gaps([position for position, _ in self._located], thicknesses)


def find_duplicates(slices: Sequence[StudySlice], positions: dict[int, float | None]) -> set[int]:
    """Which slices show what another one shows: the same file, the same SOP instance, or the same place.

    Of those that do the one with the highest probability counts, so that the order in which they came changes nothing.

    Args:
        slices: of one series, in the order of their ids.
        positions: along the normal, by the identity of the slice.

    Returns:
        Identities of the slices that do not count.
    """
    seen: set[tuple[str, int]] = set()
    places: list[float] = []
    duplicates = set()
    for one in sorted(slices, key=lambda one: (not one.is_analysed, -one.probability)):
        position = positions[id(one)]
        names = {(name, one.frame) for name in (one.image_sha256, one.facts.sop if one.facts else "") if name}
        is_there = bool(names & seen) or (position is not None and is_near(places, position))
        seen |= names
        if is_there:
            duplicates.add(id(one))
        elif position is not None:
            insort(places, position)
    return duplicates


def is_near(places: Sequence[float], position: float) -> bool:
    """Whether one of some sorted places is the same as another one."""
    index = bisect_left(places, position)
    return any(abs(place - position) < SAME_PLACE_MM for place in places[max(0, index - 1) : index + 1])
