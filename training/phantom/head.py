"""One head on a pixel grid: its coordinates, its skull's outline and its soft brushes; it knows no anatomy.

Everything is drawn with implicit functions. Head coordinates: x to the right, y to the back, unit = half the length of
the skull at its longest. The level runs from 0 (face) through 0.3 (skull base), 0.5 (third ventricle) and 0.7 (above
the ventricles) to 1 (just above the vertex).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from training.phantom.texture import ANGLES, Field, make_noise, make_profile

Point = tuple[float, float]
Window = tuple[slice, slice]

# Hounsfield units as radiology textbooks give them (Bushberg, "The Essential Physics of Medical Imaging", and the usual
# teaching tables): ranges in brackets, the value that is varied around here.
FAT, CSF = -90.0, 7.0  # -120..-60 and 0..15
WHITE_MATTER, GREY_MATTER = 27.5, 37.5  # 20..30 and 37..41; narrowed by partial volume in 5 mm slices
MUSCLE, DURA, VENOUS_BLOOD = 56.0, 58.0, 58.0  # 45..65; falx and sinuses 45..70
CALCIFICATION = 160.0  # > 100
# Far outside of every brain window, so that a pixel of which a tenth is bone is white already: 300 to 2000 for bone.
AIR, BONE, METAL = -1000.0, 1000.0, 2000.0
BASE_LEVEL, FACE_LEVEL = 0.30, 0.13

LEVEL_MM = 150.0
"""Millimetres of a level: from the skull base to the vertex they are some 11 cm."""

HALF_LENGTH_MM = 90.0
"""Half the length of a skull, which is the unit across a slice."""


def measure_distance(x: Field, y: Field) -> Field:
    """Root of the sum of squares; five times faster than numpy's hypot, which guards against overflow."""
    total: Field = x * x + y * y
    return np.sqrt(total, out=total)


class Push(NamedTuple):
    """How a lesion displaces the brain: a swelling at a centre, and a shift of the midline."""

    centre: Point = (0.0, 0.0)
    radius: float = 0.1
    swelling: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True)
class Traits:
    """What one person's head is like, and the level of the slice."""

    level: float
    atrophy: float  # 0 = young and tight, 1 = wide ventricles and sulci
    ventricles: float
    width: float
    thickness: float
    contrast: float  # grey-white contrast relative to the constants above
    brightness: float  # HU that the whole brain differs from the constants above
    lean: float  # how much lower the slice cuts the left side of the base, in levels


def draw_traits(rng: np.random.Generator) -> Traits:
    """Draw a head of any age, at the level of the third ventricle."""
    atrophy = float(rng.beta(1.1, 1.6))
    return Traits(
        level=0.5,
        atrophy=atrophy,
        ventricles=float((0.7 + 1.2 * atrophy) * rng.uniform(0.75, 1.3)),
        width=float(rng.uniform(0.74, 0.87)),
        thickness=float(rng.uniform(0.055, 0.105)),
        contrast=float(rng.uniform(0.5, 1.15)),
        brightness=float(np.clip(rng.normal(0, 1.3), -3, 3)),
        lean=float(np.clip(rng.normal(0, 0.015), -0.04, 0.04)),
    )


def measure_size(level: float) -> float:
    """The relative size of the cross-section of the vault at a level."""
    if level < 0.5:
        return 1.0 - 0.25 * (0.5 - level) ** 2
    return float(np.sqrt(max(0.02, 1.0 - ((level - 0.5) / 0.53) ** 2.4)))


class Head:
    """One head on a pixel grid: its coordinates, its tissue in HU, and the layers that lesions need."""

    def __init__(
        self,
        rng: np.random.Generator,
        shape_rng: np.random.Generator,
        traits: Traits,
        centre: Point,
        scale: float,
        tilt: float,
        size: int,
        push: Push,
        thickness: float = 0.0,
    ) -> None:
        """Lays the grid and the skull's outline.

        Args:
            rng: draws what differs from slice to slice.
            shape_rng: draws the skull, which is one for all of a patient's slices.
            traits: of the person, and the level.
            centre: of the head, x and y in pixels.
            scale: half the length of the skull, in pixels.
            tilt: turn in the field, radians.
            size: side of the field, pixels.
            push: what a lesion displaces.
            thickness: of the slice, in levels; bone that is in a part of it has that share of a pixel.
        """
        self.rng, self.traits, self.scale = rng, traits, scale
        self.pixel = np.float32(1.0 / scale)
        self.bulk = measure_size(traits.level)
        below, above = (measure_size(traits.level + side * thickness / 2) / self.bulk for side in (-1, 1))
        self.slab = min(below, above, 1.0), max(below, above, 1.0)  # sizes of the skull within the slice's thickness
        self.slice_pixels = thickness * LEVEL_MM / HALF_LENGTH_MM * scale
        self._cos, self._sin = float(np.cos(tilt)), float(np.sin(tilt))
        long, wide = scale * (1.08 * self.bulk + 0.15), scale * (0.90 * self.bulk + 0.18)
        down = long * self._cos + wide * abs(self._sin)
        across = wide * self._cos + long * abs(self._sin)
        self.top, self.left = max(0, int(centre[1] - down)), max(0, int(centre[0] - across))
        bottom, right = min(size, int(centre[1] + down) + 1), min(size, int(centre[0] + across) + 1)
        self.shape = (bottom - self.top, right - self.left)
        self._origin = (centre[0] - self.left, centre[1] - self.top)
        j = (np.arange(self.shape[1], dtype=np.float32) - self._origin[0])[None, :] / scale
        i = (np.arange(self.shape[0], dtype=np.float32) - self._origin[1])[:, None] / scale
        self.x: Field = (j * self._cos + i * self._sin).astype(np.float32)
        self.y: Field = (i * self._cos - j * self._sin).astype(np.float32)
        self._margin = int(0.5 * scale)
        padded = (self.shape[0] + self._margin, self.shape[1] + self._margin)
        self._fine = make_noise(rng, padded, float(0.085 * rng.uniform(0.9, 1.3) * scale))
        self._broad = make_noise(rng, padded, 0.35 * scale)
        self._measure_skull(shape_rng)
        self._warp_brain(push)
        self.hu: Field = np.full(self.shape, AIR, dtype=np.float32)
        self.ventricle, self.cistern, self.bone = (np.zeros(self.shape, dtype=np.float32) for _ in range(3))
        self.streaks: list[tuple[Window, Field]] = []  # HU that metal adds to the finished slice
        self.gaps: Field | None = None  # share of the vault that surgery took, a table over the polar angle
        self.collection: tuple[Field, float] | None = None  # what lies below: its thickness as a table, and its HU

    @contextmanager
    def borrow(self, rng: np.random.Generator) -> Iterator[None]:
        """Draw from another stream for a while, so that a part which may be left out does not shift this one."""
        own, self.rng = self.rng, rng
        try:
            yield
        finally:
            self.rng = own

    def take_noise(self, broad: bool = False) -> Field:
        """A window of the head's noise at a random place: far cheaper than a new field, and as good to the eye."""
        i, j = (int(k) for k in self.rng.integers(0, self._margin + 1, 2))
        return (self._broad if broad else self._fine)[i : i + self.shape[0], j : j + self.shape[1]]

    def _measure_skull(self, rng: np.random.Generator) -> None:
        traits = self.traits
        angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
        power = rng.uniform(2.0, 2.35)
        # The front of a skull is narrower than its back, more so at the base.
        front = np.clip(-np.sin(angle), 0, 1)
        width = traits.width * (1 - rng.uniform(0.02, 0.10) * front - 0.25 * max(0.0, 0.4 - traits.level) * front)
        radius = (np.abs(np.cos(angle) / width) ** power + np.abs(np.sin(angle)) ** power) ** (-1 / power)
        radius *= self.bulk * (1 + make_profile(rng, 0.022, range(2, 7)))
        # A cut near the vertex meets the vault at a slant, so the bone looks thicker.
        slant = 1.0 / np.sqrt(max(0.07, 1.0 - min(1.0, max(0.0, (traits.level - 0.5) / 0.53)) ** 3))
        thick = traits.thickness * slant * (1 + make_profile(rng, 0.30, range(2, 8)))
        thick += traits.thickness * (
            0.5 * np.exp(-(((angle + np.pi / 2) / 0.2) ** 2)) + 0.5 * np.exp(-(((angle - np.pi / 2) / 0.2) ** 2))
        )
        self.outer_table = radius.astype(np.float32)
        self.inner_table = np.maximum(radius - np.clip(thick, 0.03, None), -0.3).astype(np.float32)
        theta = np.arctan2(self.y, self.x)
        self.angle_index = ((theta + np.float32(np.pi)) * np.float32(ANGLES / (2 * np.pi))).astype(np.intp)
        np.minimum(self.angle_index, ANGLES - 1, out=self.angle_index)
        r = measure_distance(self.x, self.y)
        self.outside: Field = r - self.outer_table.take(self.angle_index)  # > 0 outside the skull
        self.depth: Field = self.inner_table.take(self.angle_index) - r  # > 0 inside the brain's cavity
        self.inside: Field = self.soften(self.depth)

    def _warp_brain(self, push: Push) -> None:
        x, y, rng = self.x, self.y, self.rng
        wobble = rng.uniform(0.01, 0.035)
        fine = np.float32(rng.uniform(0.006, 0.014))  # no edge in a brain is a ruler's
        bx = x + np.float32(wobble) * self.take_noise(broad=True)
        by = y + np.float32(wobble) * self.take_noise(broad=True)
        if push.swelling:
            dx, dy = x - np.float32(push.centre[0]), y - np.float32(push.centre[1])
            pull = np.float32(push.swelling) * np.exp(-(dx * dx + dy * dy) / np.float32(2 * (1.5 * push.radius) ** 2))
            bx -= dx * pull
            by -= dy * pull
        if push.shift:
            bx -= np.float32(push.shift) * np.exp(-(y * y) / np.float32(0.35)) * np.clip(1.2 - 1.5 * np.abs(x), 0, 1)
        self.off_midline: Field = np.abs(bx)  # without the fine part: the falx is taut
        self.bx: Field = bx + fine * self.take_noise()
        self.by: Field = by + fine * self.take_noise()

    def soften(self, signed: Field, edge: float | Field = 0.0) -> Field:
        """A mask from a distance in head units; its edge is one and a half pixels wide, or wider if asked."""
        mask = signed * (np.float32(1.0) / np.maximum(np.float32(1.5 / self.scale), edge, dtype=np.float32))
        mask += np.float32(0.5)
        np.maximum(mask, 0, out=mask)
        np.minimum(mask, 1, out=mask)
        return mask

    def find_window(self, points: tuple[Point, ...], margin: float) -> Window:
        """The smallest window of the grid that holds all points and a margin around them."""
        cols = [self._origin[0] + self.scale * (x * self._cos - y * self._sin) for x, y in points]
        rows = [self._origin[1] + self.scale * (x * self._sin + y * self._cos) for x, y in points]
        m = (margin + 0.11) * self.scale  # the brain is warped by up to about a tenth
        h, w = self.shape
        return (
            slice(min(h, max(0, int(min(rows) - m))), min(h, max(0, int(max(rows) + m) + 1))),
            slice(min(w, max(0, int(min(cols) - m))), min(w, max(0, int(max(cols) + m) + 1))),
        )

    def make_capsule(self, start: Point, end: Point, r0: float, r1: float, edge: float = 0.018) -> tuple[Window, Field]:
        """A soft mask of a tapered sausage from start to end; a disc where both are one."""
        window = self.find_window((start, end), max(r0, r1))
        x, y = self.bx[window] - np.float32(start[0]), self.by[window] - np.float32(start[1])
        ex, ey = end[0] - start[0], end[1] - start[1]
        norm = ex * ex + ey * ey
        if norm < 1e-8:
            return window, self.soften(np.float32(r0) - measure_distance(x, y), edge)
        t = np.clip((x * np.float32(ex) + y * np.float32(ey)) * np.float32(1 / norm), 0, 1)
        gap = measure_distance(x - t * np.float32(ex), y - t * np.float32(ey))
        return window, self.soften(np.float32(r0) + t * np.float32(r1 - r0) - gap, edge)

    def make_ellipse(
        self, centre: Point, rx: float, ry: float, turn: float = 0.0, rough: float = 0.0, edge: float = 0.0
    ) -> tuple[Window, Field]:
        """A soft mask of an ellipse, with a rough rim if asked."""
        big = max(rx, ry) * (1 + 1.5 * rough)
        window = self.find_window((centre,), big)
        x, y = self.bx[window] - np.float32(centre[0]), self.by[window] - np.float32(centre[1])
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        q = measure_distance((x * c + y * s) * np.float32(1 / rx), (y * c - x * s) * np.float32(1 / ry))
        if rough and q.size:
            shape = (q.shape[0], q.shape[1])
            q = q + np.float32(0.7 * rough) * make_noise(self.rng, shape, max(2.0, 0.55 * min(rx, ry) * self.scale))
        return window, self.soften((np.float32(1) - q) * np.float32(min(rx, ry)), edge)

    def blend(self, area: tuple[Window, Field], value: float | Field, strength: float = 1.0) -> None:
        """Lay a tissue over what is there."""
        window, mask = area
        part = self.hu[window]
        part += mask * np.float32(strength) * (value - part)

    def add_star(self, centre: Point, radius: float, strength: float) -> None:
        """Bright and dark rays around metal, in HU, to be added to the finished slice."""
        dx, dy = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        turn = np.arctan2(dy, dx)
        rays = np.zeros(self.shape, dtype=np.float32)
        for order in (2, 5, 9, 16):  # rays are opposite in pairs where the order is even, as between two pieces
            phase, share = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.3, 1.0)
            rays += np.float32(share) * np.cos(np.float32(order) * turn + np.float32(phase))
        rays *= np.float32(strength * 3 * radius) / np.maximum(measure_distance(dx, dy), np.float32(radius))
        self.streaks.append(((slice(None), slice(None)), rays))

    def cover(self, layer: Field, area: tuple[Window, Field], strength: float = 1.0) -> None:
        """Add an area to a layer that is laid down later."""
        window, mask = area
        np.maximum(layer[window], mask * np.float32(strength), out=layer[window])


def whole(mask: Field) -> tuple[Window, Field]:
    """A mask of the whole grid as an area."""
    return (slice(None), slice(None)), mask
