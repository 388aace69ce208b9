"""Where slices lie: along the normal that they share, in millimetres, whatever the order in which they came.

Patient coordinates of DICOM grow to the left, to the back and to the head (PS3.3 C.7.6.2.1.1). A gantry that is tilted
turns the normal, while the table goes on along the body: so slices are ordered by their distance along the normal, and
what is between the two directions is the tilt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import TypeAlias

Vector: TypeAlias = tuple[float, float, float]

SAME_PLACE_MM = 0.1
"""Slices that are nearer to each other show the same place."""

MOST_MM = 1e5
"""Of a coordinate; what is larger, or no number, is none."""

GAP = 1.5
"""A distance of so many usual ones is a gap, where slices are not as thick as that themselves."""


def find_normal(orientation: Sequence[float] | None) -> Vector | None:
    """The unit normal of a slice, towards the head.

    Args:
        orientation: directions of a row and of a column; None: they are not known.
    """
    if orientation is None or not all(map(math.isfinite, orientation)):
        return None
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    return find_direction((b * f - c * e, c * d - a * f, a * e - b * d))


def find_direction(vector: Iterable[float]) -> Vector | None:
    """The same direction with length 1, towards the head; None where there is none."""
    x, y, z = vector
    length = math.hypot(x, y, z)
    if not math.isfinite(length) or length < 1e-3:
        return None
    length = -length if z < 0 else length
    return (x / length, y / length, z / length)


def find_place(position: Sequence[float] | None) -> Vector | None:
    """A position that can be reckoned with."""
    if position is None or not all(abs(value) <= MOST_MM for value in position):
        return None
    x, y, z = position
    return (x, y, z)


def find_angle(normal: Vector) -> float:
    """Degrees between a normal and the axis of the body."""
    return math.degrees(math.acos(min(1.0, normal[2])))


def find_mean_normal(normals: Sequence[Vector]) -> Vector | None:
    """The normal that slices share."""
    return find_direction(map(math.fsum, zip(*normals, strict=True))) if normals else None


def project(place: Vector, normal: Vector) -> float:
    """Where a slice lies along a normal, in millimetres, growing towards the head."""
    return sum(a * b for a, b in zip(place, normal, strict=True))


def find_tilt(normal: Vector, first: Vector, last: Vector) -> float:
    """Degrees between the normal and the way from the first slice to the last; 0 where they lie at one place."""
    way = find_direction(b - a for a, b in zip(first, last, strict=True))
    if way is None:
        return 0.0
    return math.degrees(math.acos(min(1.0, abs(project(way, normal)))))


def find_spacing(positions: Sequence[float]) -> float:
    """The usual distance of slices at different places, in order; 0 where there are not two."""
    return median(b - a for a, b in pairwise(positions)) if len(positions) > 1 else 0.0


def find_gaps(positions: Sequence[float], thicknesses: Sequence[float]) -> list[float]:
    """Distances within which no slice shows what is there.

    Args:
        positions: in order, of slices at different places.
        thicknesses: of these slices; 0: not known.
    """
    usual = find_spacing(positions)
    found = []
    for index, distance in enumerate(b - a for a, b in pairwise(positions)):
        # A part in thicker slices lies further apart and leaves nothing out.
        thickness = max(thicknesses[index : index + 2])
        if distance > GAP * usual and distance > 1.1 * thickness:
            found.append(distance)
    return found
