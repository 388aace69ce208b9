"""The anatomy of a synthetic axial head-CT slice in Hounsfield units; it is not a model of any person.

Everything is drawn with implicit functions on one pixel grid. Head coordinates: x to the right, y to the back, unit =
half the length of the skull at its longest. The level runs from 0 (face) through 0.3 (skull base), 0.5 (third
ventricle) and 0.7 (above the ventricles) to 1 (just above the vertex).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]
Point = tuple[float, float]
Window = tuple[slice, slice]

# Hounsfield units as radiology textbooks give them (Bushberg, "The Essential Physics of Medical Imaging", and the usual
# teaching tables): ranges in brackets, the value that is varied around here.
AIR, FAT, CSF = -1000.0, -90.0, 7.0  # fat -120..-60, cerebrospinal fluid 0..15
WHITE_MATTER, GREY_MATTER = 27.5, 37.5  # 20..30 and 37..41; narrowed by partial volume in 5 mm slices
MUSCLE, DURA, VENOUS_BLOOD = 56.0, 58.0, 58.0  # 45..65; falx and sinuses 45..70
BONE, CALCIFICATION = 1000.0, 160.0  # > 300 and > 100
BASE_LEVEL, FACE_LEVEL = 0.30, 0.13
_ANGLES = 1024  # entries of every table over the polar angle: finer than a pixel at the rim of a 512-pixel head


class Push(NamedTuple):
    """How a lesion displaces the brain: a swelling at a centre, and a shift of the midline."""

    centre: Point = (0.0, 0.0)
    radius: float = 0.1
    swelling: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True)
class Traits:
    """What one person's head is like, drawn once a slice."""

    level: float
    atrophy: float  # 0 = young and tight, 1 = wide ventricles and sulci
    ventricles: float
    width: float
    thickness: float
    contrast: float  # grey-white contrast relative to the constants above


def draw_traits(rng: np.random.Generator, level: float) -> Traits:
    """Draw a head of any age."""
    atrophy = float(rng.beta(1.1, 1.6))
    return Traits(
        level=level,
        atrophy=atrophy,
        ventricles=float((0.6 + 1.0 * atrophy) * rng.uniform(0.7, 1.3)),
        width=float(rng.uniform(0.74, 0.87)),
        thickness=float(rng.uniform(0.055, 0.105)),
        contrast=float(rng.uniform(0.55, 1.15)),
    )


def make_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Field:
    """Smooth noise of unit-like spread whose bumps are about `cell` pixels wide."""
    rows, cols = (max(2, round(n / cell)) + 3 for n in shape)
    grid = Image.fromarray(rng.standard_normal((rows, cols), dtype=np.float32))
    box = (1.0, 1.0, 1.0 + max(1.0, shape[1] / cell), 1.0 + max(1.0, shape[0] / cell))
    box = (1.0, 1.0, min(box[2], cols - 1.0), min(box[3], rows - 1.0))
    return np.asarray(grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box), dtype=np.float32)


def make_profile(rng: np.random.Generator, amplitude: float, orders: range) -> Field:
    """A random periodic function of the polar angle, as a table, falling off with the order."""
    angle = np.linspace(-np.pi, np.pi, _ANGLES, endpoint=False)
    table = np.zeros(_ANGLES)
    for k in orders:
        table += rng.normal(0.0, amplitude / k) * np.cos(k * angle + rng.uniform(0.0, 2 * np.pi))
    return table.astype(np.float32)


def measure_size(level: float) -> float:
    """The relative size of the cross-section of the vault at a level."""
    if level < 0.5:
        return 1.0 - 0.25 * (0.5 - level) ** 2
    return float(np.sqrt(max(0.02, 1.0 - ((level - 0.5) / 0.53) ** 2.4)))


class Head:
    """One head on a pixel grid: its coordinates, its tissue in HU, and the layers that lesions need."""

    def __init__(
        self, rng: np.random.Generator, traits: Traits, centre: Point, scale: float, tilt: float, size: int, push: Push
    ) -> None:
        self.rng, self.traits, self.scale = rng, traits, scale
        self.pixel = np.float32(1.0 / scale)
        self.bulk = measure_size(traits.level)
        self._cos, self._sin = float(np.cos(tilt)), float(np.sin(tilt))
        reach = scale * (1.3 * self.bulk + 0.12)
        self.top, self.left = (max(0, int(c - reach)) for c in (centre[1], centre[0]))
        bottom, right = (min(size, int(c + reach) + 1) for c in (centre[1], centre[0]))
        self.shape = (bottom - self.top, right - self.left)
        self._origin = (centre[0] - self.left, centre[1] - self.top)
        j = (np.arange(self.shape[1], dtype=np.float32) - self._origin[0])[None, :] / scale
        i = (np.arange(self.shape[0], dtype=np.float32) - self._origin[1])[:, None] / scale
        self.x: Field = (j * self._cos + i * self._sin).astype(np.float32)
        self.y: Field = (i * self._cos - j * self._sin).astype(np.float32)
        self._measure_skull()
        self._warp_brain(push)
        self.hu: Field = np.full(self.shape, AIR, dtype=np.float32)
        self.ventricle, self.cistern, self.bone = (np.zeros(self.shape, dtype=np.float32) for _ in range(3))

    def _measure_skull(self) -> None:
        rng, traits = self.rng, self.traits
        angle = np.linspace(-np.pi, np.pi, _ANGLES, endpoint=False)
        power = rng.uniform(2.0, 2.35)
        # The front of a skull is narrower than its back, more so at the base.
        front = np.clip(-np.sin(angle), 0, 1)
        width = traits.width * (1 - rng.uniform(0.02, 0.10) * front - 0.25 * max(0.0, 0.4 - traits.level) * front)
        radius = (np.abs(np.cos(angle) / width) ** power + np.abs(np.sin(angle)) ** power) ** (-1 / power)
        radius *= self.bulk * (1 + make_profile(rng, 0.022, range(2, 7)))
        # A cut near the vertex meets the vault at a slant, so the bone looks thicker.
        slant = 1.0 / np.sqrt(max(0.07, 1.0 - min(1.0, max(0.0, (traits.level - 0.5) / 0.53)) ** 3))
        thick = traits.thickness * slant * (1 + make_profile(rng, 0.30, range(2, 8)))
        thick += traits.thickness * (0.5 * np.exp(-((angle + np.pi / 2) / 0.2) ** 2) + 0.5 * np.exp(-((angle - np.pi / 2) / 0.2) ** 2))
        self.outer_table = radius.astype(np.float32)
        self.inner_table = np.maximum(radius - np.clip(thick, 0.03, None), -0.3).astype(np.float32)
        theta = np.arctan2(self.y, self.x)
        self.angle_index = ((theta + np.float32(np.pi)) * np.float32(_ANGLES / (2 * np.pi))).astype(np.int32) % _ANGLES
        r = np.hypot(self.x, self.y)
        self.outside: Field = r - self.outer_table[self.angle_index]  # > 0 outside the skull
        self.depth: Field = self.inner_table[self.angle_index] - r  # > 0 inside the brain's cavity
        self.inside: Field = self.soften(self.depth)

    def _warp_brain(self, push: Push) -> None:
        x, y, rng = self.x, self.y, self.rng
        wobble = rng.uniform(0.01, 0.035)
        cell = 0.35 * self.scale
        bx = x + np.float32(wobble) * make_noise(rng, self.shape, cell)
        by = y + np.float32(wobble) * make_noise(rng, self.shape, cell)
        if push.swelling:
            dx, dy = x - np.float32(push.centre[0]), y - np.float32(push.centre[1])
            pull = np.float32(push.swelling) * np.exp(-(dx * dx + dy * dy) / np.float32(2 * (1.5 * push.radius) ** 2))
            bx -= dx * pull
            by -= dy * pull
        if push.shift:
            bx -= np.float32(push.shift) * np.exp(-(y * y) / np.float32(0.35)) * np.clip(1.2 - 1.5 * np.abs(x), 0, 1)
        self.bx, self.by = bx.astype(np.float32), by.astype(np.float32)

    def soften(self, signed: Field) -> Field:
        """A mask from a distance in head units, its edge one and a half pixels wide."""
        return np.clip(signed * np.float32(self.scale / 1.5) + np.float32(0.5), 0, 1)

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

    def make_capsule(self, start: Point, end: Point, r0: float, r1: float) -> tuple[Window, Field]:
        """A soft mask of a tapered sausage from start to end; a disc where both are one."""
        window = self.find_window((start, end), max(r0, r1))
        x, y = self.bx[window] - np.float32(start[0]), self.by[window] - np.float32(start[1])
        ex, ey = end[0] - start[0], end[1] - start[1]
        norm = ex * ex + ey * ey
        if norm < 1e-8:
            return window, self.soften(np.float32(r0) - np.hypot(x, y))
        t = np.clip((x * np.float32(ex) + y * np.float32(ey)) * np.float32(1 / norm), 0, 1)
        return window, self.soften(
            np.float32(r0) + t * np.float32(r1 - r0) - np.hypot(x - t * np.float32(ex), y - t * np.float32(ey))
        )

    def make_ellipse(self, centre: Point, rx: float, ry: float, turn: float = 0.0, rough: float = 0.0) -> tuple[Window, Field]:
        """A soft mask of an ellipse, with a rough rim if asked."""
        big = max(rx, ry) * (1 + 1.5 * rough)
        window = self.find_window((centre,), big)
        x, y = self.bx[window] - np.float32(centre[0]), self.by[window] - np.float32(centre[1])
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        q = np.hypot((x * c + y * s) / np.float32(rx), (y * c - x * s) / np.float32(ry))
        if rough and q.size:
            shape = (q.shape[0], q.shape[1])
            q = q + np.float32(rough) * make_noise(self.rng, shape, max(2.0, 0.55 * min(rx, ry) * self.scale))
        return window, self.soften((np.float32(1) - q) * np.float32(min(rx, ry)))

    def blend(self, area: tuple[Window, Field], value: float | Field, strength: float = 1.0) -> None:
        """Lay a tissue over what is there."""
        window, mask = area
        part = self.hu[window]
        part += mask * np.float32(strength) * (value - part)

    def cover(self, layer: Field, area: tuple[Window, Field], strength: float = 1.0) -> None:
        """Add an area to a layer that is laid down later."""
        window, mask = area
        np.maximum(layer[window], mask * np.float32(strength), out=layer[window])


def draw_anatomy(head: Head) -> None:
    """Draw everything a head has at its level except a lesion and the bone, which covers both."""
    level = head.traits.level
    _draw_scalp(head)
    if level < FACE_LEVEL:
        _draw_face(head)
        return
    if level < BASE_LEVEL:
        _shape_skull_base(head)
    _draw_parenchyma(head)
    if level < 0.37:
        _draw_fossa(head)
    elif level < 0.46:
        _draw_midbrain(head)
    elif level < 0.58:
        _draw_thalamus(head)
    elif level < 0.69:
        _draw_bodies(head)
    _draw_fluid(head)
    if level >= 0.36:
        _draw_falx(head)
    _draw_calcifications(head)
    _draw_sinuses(head)


def lay_bone(head: Head) -> None:
    """Lay the vault and the bones of the base over brain and lesion."""
    if head.traits.level >= BASE_LEVEL:
        vault = head.soften(-head.outside) * (1 - head.inside)
        np.maximum(head.bone, vault, out=head.bone)
        if head.traits.level < 0.5 and head.rng.random() < 0.8:
            _draw_frontal_sinus(head)
    head.hu += head.bone * (np.float32(BONE) - head.hu)
    if head.traits.level < 0.40:
        _draw_air_cells(head)


def _whole(mask: Field) -> tuple[Window, Field]:
    return (slice(None), slice(None)), mask


def _draw_scalp(head: Head) -> None:
    rng = head.rng
    table = rng.uniform(0.03, 0.075) * (1 + make_profile(rng, 0.5, range(1, 5)))
    swelling = np.zeros(_ANGLES, dtype=np.float32)
    if rng.random() < 0.15:  # a bruise of the scalp says nothing about the brain: both classes have it
        angle = np.linspace(-np.pi, np.pi, _ANGLES, endpoint=False)
        swelling = (rng.uniform(0.03, 0.09) * np.exp(-((angle - rng.uniform(-2.8, 2.8)) / rng.uniform(0.15, 0.5)) ** 2)).astype(np.float32)
    scalp = (np.clip(table, 0.015, 0.2).astype(np.float32) + swelling)[head.angle_index]
    head.blend(_whole(head.soften(scalp - head.outside)), FAT)
    skin = head.soften(np.float32(0.008) - np.abs(head.outside - scalp + np.float32(0.008)))
    head.blend(_whole(skin), 20.0, float(rng.uniform(0.5, 1.0)))
    if swelling.any():
        head.blend(_whole(head.soften(swelling[head.angle_index] - head.outside) * (head.outside > 0)), 52.0, 0.95)
    if head.traits.level < 0.62:  # temporalis and neck muscles outside the skull
        for side in (-1.0, 1.0):
            reach = 0.09 + 0.35 * max(0.0, 0.45 - head.traits.level)
            bump = np.float32(reach * rng.uniform(0.5, 1.0)) * np.exp(-((head.y + np.float32(0.25)) / np.float32(0.28)) ** 2)
            muscle = head.soften(bump - head.outside) * (head.x * side > 0) * (head.outside > -0.02)
            head.blend(_whole(muscle), MUSCLE)


def _draw_parenchyma(head: Head) -> None:
    traits, rng = head.traits, head.rng
    cell = 0.105 * head.scale * rng.uniform(0.85, 1.2)
    fold = np.abs(make_noise(rng, head.shape, cell))
    depth = head.depth
    deep = np.clip((depth - np.float32(0.20)) * np.float32(9), 0, 1)
    if traits.level < 0.37:  # little white matter is cut at the base
        deep *= 0.5
    white = np.clip((fold - np.float32(0.34)) * np.float32(2.6), 0, 1) * np.clip((depth - np.float32(0.05)) * np.float32(25), 0, 1)
    white = np.maximum(white * np.float32(0.9), deep * np.float32(0.92))
    mid = 0.5 * (WHITE_MATTER + GREY_MATTER)
    half = 0.5 * traits.contrast * (GREY_MATTER - WHITE_MATTER)
    tissue = np.float32(mid + half) - white * np.float32(2 * half)
    tissue += np.float32(0.7) * make_noise(rng, head.shape, 0.3 * head.scale)
    head.blend(_whole(head.inside), tissue)
    if traits.atrophy > 0.55 and traits.level > 0.45 and rng.random() < 0.6:  # age-related white matter change
        halo = np.exp(-((np.abs(head.bx) - np.float32(0.2)) / np.float32(0.12)) ** 2 - ((np.abs(head.by) - np.float32(0.3)) / np.float32(0.2)) ** 2)
        head.blend(_whole(halo * deep * head.inside), 21.0, float(rng.uniform(0.2, 0.7)))
    # Sulci follow the folds from the surface inwards, wider and deeper with age.
    limit = 0.07 + 0.16 * traits.atrophy + 0.05 * rng.random()
    if traits.level > 0.75:
        limit *= 1.6
    width = 0.05 + 0.20 * traits.atrophy**1.5 + 0.05 * rng.random()
    near = np.clip((np.float32(limit) - depth) * np.float32(14), 0, 1)
    patchy = np.clip(make_noise(rng, head.shape, 0.4 * head.scale) + np.float32(0.6), 0, 1)
    sulci = np.clip((np.float32(width) - fold) * np.float32(7) + np.float32(0.35), 0, 1) * near * patchy
    rim = head.soften(np.float32(0.004 + 0.03 * traits.atrophy * rng.uniform(0.3, 1.0)) - depth)
    np.maximum(head.cistern, np.maximum(sulci * np.float32(0.35 + 0.6 * traits.atrophy), rim * np.float32(0.7)), out=head.cistern)


def _draw_fluid(head: Head) -> None:
    csf = CSF + float(head.rng.uniform(-4, 4))
    head.cistern *= head.inside
    head.ventricle *= head.inside
    head.blend(_whole(head.cistern), csf)
    head.blend(_whole(head.ventricle), csf)


def _draw_thalamus(head: Head) -> None:
    rng, v = head.rng, head.traits.ventricles
    rise = (head.traits.level - 0.46) / 0.12
    grey = GREY_MATTER + 0.5
    for side in (-1.0, 1.0):
        u = v * float(rng.uniform(0.88, 1.12))
        head.blend(head.make_ellipse((side * 0.30, -0.06), 0.085, 0.20, side * -0.30), grey, 0.8)
        head.blend(head.make_ellipse((side * (0.11 + 0.02 * u), 0.07), 0.095, 0.15, side * -0.45), grey, 0.75)
        head.blend(head.make_ellipse((side * (0.12 + 0.04 * u), -0.28), 0.07, 0.11, side * 0.3), grey, 0.8)
        head.cover(head.ventricle, head.make_capsule((side * 0.035, -0.16), (side * (0.06 + 0.055 * u), -0.40), 0.018 * u, 0.036 * u))
        head.cover(head.ventricle, head.make_capsule((side * 0.24, 0.24), (side * 0.27, 0.36 + 0.14 * u * rng.random()), 0.034 * u, 0.022 * u), 0.5 + 0.5 * min(1.0, u))
        if rise > 0.5:
            head.cover(head.ventricle, head.make_capsule((side * 0.12, 0.14), (side * 0.24, 0.26), 0.02 * u, 0.034 * u))
        _draw_sylvian(head, side)
    head.cover(head.ventricle, head.make_capsule((0, -0.07), (0, 0.13), 0.011 * v + 0.004, 0.014 * v + 0.004))
    head.cover(head.cistern, head.make_ellipse((0, 0.235), 0.06 + 0.03 * v, 0.022 + 0.012 * v))


def _draw_sylvian(head: Head, side: float) -> None:
    a, rng = head.traits.atrophy, head.rng
    wide = 0.008 + 0.028 * a * float(rng.uniform(0.6, 1.2))
    head.cover(head.cistern, head.make_capsule((side * 0.42, -0.16), (side * 0.43, 0.10), wide, wide * 0.7), 0.5 + 0.5 * a)
    head.cover(head.cistern, head.make_capsule((side * 0.42, -0.16), (side * 0.66, -0.22), wide, wide * 1.2), 0.5 + 0.5 * a)
    head.cover(head.cistern, head.make_capsule((side * 0.43, 0.06), (side * 0.66, 0.12), wide * 0.6, wide * 0.8), 0.3 + 0.5 * a)


def _draw_bodies(head: Head) -> None:
    rng, v = head.rng, head.traits.ventricles
    high = (head.traits.level - 0.58) / 0.11
    for side in (-1.0, 1.0):
        u = v * float(rng.uniform(0.85, 1.15)) * (1 - 0.35 * high)
        gap = 0.045 + 0.03 * high
        head.blend(head.make_ellipse((side * (gap + 0.09 * u), -0.16), 0.045, 0.2, side * 0.15), GREY_MATTER, 0.7)
        head.cover(head.ventricle, head.make_capsule((side * (gap + 0.05), -0.36), (side * gap, -0.08), 0.026 * u, 0.036 * u))
        head.cover(head.ventricle, head.make_capsule((side * gap, -0.08), (side * (0.12 + gap), 0.20), 0.036 * u, 0.036 * u))
        head.cover(head.ventricle, head.make_capsule((side * (0.12 + gap), 0.20), (side * 0.24, 0.36), 0.040 * u, 0.026 * u), max(0.0, 1 - high))


def _draw_midbrain(head: Head) -> None:
    rng, a = head.rng, head.traits.atrophy
    w = 0.014 + 0.028 * a * float(rng.uniform(0.6, 1.2))
    opening = 0.55 + 0.45 * a
    head.cover(head.cistern, head.make_ellipse((0, -0.13), 0.06 + w, 0.05 + w, rough=0.15), opening)
    for x, y in ((0.0, -0.32), (0.26, -0.20), (-0.26, -0.20), (0.17, 0.0), (-0.17, 0.0)):
        head.cover(head.cistern, head.make_capsule((0.3 * x, -0.13), (x, y), w * 1.3, w * 0.7), opening)
    ring = head.make_ellipse((0, 0.09), 0.145 + w, 0.155 + w)
    head.cover(head.cistern, ring, opening)
    core = head.make_ellipse((0, 0.08), 0.145 - 0.3 * w, 0.15 - 0.3 * w)
    head.cistern[core[0]] *= 1 - core[1]
    head.blend(core, 33.0, 0.8)
    head.cover(head.cistern, head.make_capsule((-0.09, 0.27), (0.09, 0.27), 0.018 + w * 0.4, 0.018 + w * 0.4), opening)
    for side in (-1.0, 1.0):
        u = head.traits.ventricles
        head.cover(head.ventricle, head.make_capsule((side * 0.36, -0.10), (side * 0.34, 0.12), 0.012 * u, 0.017 * u), min(1.0, 0.4 + 0.4 * u))
        _draw_sylvian(head, side)
    _draw_cerebellum(head, 0.30, 0.34)


def _draw_cerebellum(head: Head, top: float, width: float) -> None:
    """The cerebellum behind the tentorium: fine leaves, and bright dura along its edge."""
    rng = head.rng
    area = head.make_ellipse((0, top + 0.34), width * 1.25, 0.36, rough=0.05)
    window, mask = area
    leaves = np.sin((head.by[window] * np.float32(1.0) + np.float32(0.35) * np.abs(head.bx[window])) * np.float32(rng.uniform(55, 75)))
    value = np.float32(36.0) + np.float32(1.6) * leaves + np.float32(1.0)
    mask = mask * head.inside[window]
    head.blend((window, mask), value.astype(np.float32), 0.9)
    head.cistern[window] *= 1 - mask * np.float32(0.75 - 0.4 * head.traits.atrophy)
    if rng.random() < 0.7:
        for side in (-1.0, 1.0):
            head.blend(head.make_capsule((side * 0.06, top + 0.03), (side * width, top + 0.32), 0.007, 0.010), DURA, float(rng.uniform(0.2, 0.7)))


def _draw_fossa(head: Head) -> None:
    """Pons, fourth ventricle, cerebellum and the bones between the three cranial fossae."""
    rng, level, a = head.rng, head.traits.level, head.traits.atrophy
    _draw_cerebellum(head, 0.16, 0.44)
    opening = 0.5 + 0.5 * a
    head.cover(head.cistern, head.make_capsule((-0.16, -0.05), (0.16, -0.05), 0.02 + 0.03 * a, 0.02 + 0.03 * a), opening)
    head.cover(head.cistern, head.make_ellipse((0, -0.14), 0.07 + 0.05 * a, 0.06 + 0.04 * a, rough=0.15), opening)
    for side in (-1.0, 1.0):
        head.cover(head.cistern, head.make_capsule((side * 0.14, 0.0), (side * 0.25, 0.14), 0.02, 0.012 + 0.02 * a), opening)
    head.blend(head.make_ellipse((0, 0.08), 0.16, 0.135), 32.0, 0.8)
    v = float(rng.uniform(0.7, 1.3)) * (0.7 + 0.5 * a)
    head.cover(head.ventricle, head.make_ellipse((0, 0.25), 0.055 * v, 0.035 * v))
    low = max(0.0, (0.38 - level) / 0.08)
    for side in (-1.0, 1.0):
        tip = 0.10 + 0.25 * (1 - min(1.0, low)) * rng.random()
        head.cover(head.bone, head.make_capsule((side * 0.80, 0.16 + 0.06 * rng.random()), (side * (tip + 0.05), -0.02), 0.085 + 0.05 * low, 0.022 + 0.02 * low))
        if level < 0.35:
            head.cover(head.bone, head.make_capsule((side * 0.62, -0.46), (side * 0.16, -0.26), 0.05 + 0.03 * low, 0.03))
        if level < 0.345 and rng.random() < 0.6:  # orbital roofs rise into the frontal lobes
            head.cover(head.bone, head.make_ellipse((side * 0.28, -0.62), 0.10 + 0.08 * rng.random(), 0.08, rough=0.4))
    if level < 0.36:
        for side in (-1.0, 1.0):
            head.cover(head.bone, head.make_ellipse((side * 0.09, -0.17), 0.035, 0.03))
        head.cover(head.bone, head.make_capsule((-0.10, -0.08), (0.10, -0.08), 0.02, 0.02))


def _shape_skull_base(head: Head) -> None:
    """Reduce the brain's cavity to three fossae; the rest becomes bone, air cells, orbits and muscle."""
    rng = head.rng
    t = (head.traits.level - FACE_LEVEL) / (BASE_LEVEL - FACE_LEVEL)
    cavity, rim = np.zeros(head.shape, dtype=np.float32), np.zeros(head.shape, dtype=np.float32)
    back = (0.0, 0.42)
    fossae = [(back, 0.28 + 0.26 * t, 0.22 + 0.16 * t)]
    if t > 0.25:
        fossae += [((side * 0.42, -0.17), 0.10 + 0.13 * t, 0.10 + 0.16 * t) for side in (-1.0, 1.0)]
    if t > 0.8:
        fossae += [((0.0, -0.62), 0.3, 0.2)]
    wall = head.traits.thickness
    for centre, rx, ry in fossae:
        head.cover(cavity, head.make_ellipse(centre, rx, ry, rough=0.06))
        head.cover(rim, head.make_ellipse(centre, rx + wall * 1.3, ry + wall * 1.3, rough=0.05))
    mix = make_noise(rng, head.shape, 0.10 * head.scale)
    within = head.soften(-head.outside)
    filling = np.where(mix > 0.35, np.float32(MUSCLE), np.float32(FAT))
    head.blend(_whole(within), filling.astype(np.float32))
    middle = within * np.clip(1.3 - 3.2 * np.hypot(head.x * np.float32(0.75), head.y + np.float32(0.08)), 0, 1)
    np.maximum(head.bone, np.clip(middle * 2.5 + mix - 0.6, 0, 1) * within, out=head.bone)
    for side in (-1.0, 1.0):
        head.cover(head.bone, head.make_capsule((side * 0.62, 0.14), (side * 0.18, 0.0), 0.14, 0.09))
    np.maximum(head.bone, rim * within, out=head.bone)
    head.bone *= 1 - cavity
    _draw_orbits(head, 0.30 + 0.5 * t)
    head.inside = cavity * head.soften(-head.outside - np.float32(0.5 * wall))
    head.depth = np.minimum(head.depth, (cavity - np.float32(0.5)) * np.float32(0.2))


def _draw_orbits(head: Head, open_front: float) -> None:
    rng = head.rng
    globe = 0.135 * rng.uniform(0.9, 1.1)
    nose = head.make_capsule((0, -1.08), (0, -0.55), 0.05, 0.16)
    head.blend(nose, AIR)
    head.bone[nose[0]] *= 1 - nose[1]
    septa = np.clip(np.abs(make_noise(rng, head.shape, 0.07 * head.scale)) * -6 + 0.9, 0, 1)
    head.cover(head.bone, (nose[0], nose[1] * septa[nose[0]]))
    for side in (-1.0, 1.0):
        cone = head.make_capsule((side * 0.34, -0.80), (side * 0.20, -0.42), 0.20, 0.04)
        rim = head.make_capsule((side * 0.34, -0.76), (side * 0.20, -0.42), 0.235, 0.08)
        head.cover(head.bone, rim, float(np.clip(open_front + 0.5, 0, 1)))
        head.bone[cone[0]] *= 1 - cone[1]
        head.blend(cone, FAT)
        head.blend(head.make_ellipse((side * 0.35, -0.84), globe, globe), 45.0)
        head.blend(head.make_ellipse((side * 0.35, -0.84), globe * 0.86, globe * 0.86), 12.0)
        head.blend(head.make_ellipse((side * 0.35, -0.84 - 0.75 * globe), globe * 0.4, globe * 0.2), 75.0)
        for x in (0.24, 0.33, 0.42):
            head.blend(head.make_capsule((side * x, -0.72), (side * 0.21, -0.46), 0.018, 0.012), 45.0)


def _draw_face(head: Head) -> None:
    """Below the skull base: muscle, fat, airway, jaw and the top of the spine; hardly any brain."""
    rng = head.rng
    within = head.soften(-head.outside)
    mix = make_noise(rng, head.shape, 0.11 * head.scale)
    head.blend(_whole(within), np.where(mix > -0.1, np.float32(MUSCLE), np.float32(FAT)).astype(np.float32))
    low = rng.random() < 0.5
    for side in (-1.0, 1.0):
        head.cover(head.bone, head.make_capsule((side * 0.10, -0.92), (side * 0.50, -0.25), 0.06, 0.05), 1.0)
        head.cover(head.bone, head.make_ellipse((side * 0.50, 0.16), 0.13, 0.11, rough=0.3))
        if not low:
            sinus = head.make_ellipse((side * 0.30, -0.55), 0.15, 0.19, rough=0.1)
            wall = head.make_ellipse((side * 0.30, -0.55), 0.185, 0.225, rough=0.1)
            head.cover(head.bone, wall)
            head.bone[sinus[0]] *= 1 - sinus[1]
            head.blend(sinus, AIR)
    airway = head.make_capsule((0, -0.95 if not low else -0.2), (0, -0.12), 0.05, 0.10)
    head.blend(airway, AIR)
    head.bone[airway[0]] *= 1 - airway[1]
    outer = head.make_ellipse((0, 0.40), 0.27, 0.22, rough=0.12)
    canal = head.make_ellipse((0, 0.42), 0.14, 0.12)
    head.cover(head.bone, outer)
    head.bone[canal[0]] *= 1 - canal[1]
    head.blend(canal, CSF + 5)
    head.blend(head.make_ellipse((0, 0.41), 0.09, 0.07), 34.0)
    head.bone *= within
    head.inside = np.zeros(head.shape, dtype=np.float32)


def _draw_falx(head: Head) -> None:
    rng, a = head.rng, head.traits.atrophy
    reach = 1.1
    gaps = [(-reach, -0.34), (0.36, reach)] if head.traits.level < 0.69 else [(-reach, reach)]
    bright = float(rng.uniform(0.15, 0.75))
    dura = DURA + float(rng.uniform(-6, 12))
    for y0, y1 in gaps:
        if y0 > 0 and head.traits.level < 0.46:
            continue
        fissure = head.make_capsule((0, y0), (0, y1), 0.010 + 0.022 * a, 0.010 + 0.022 * a)
        fissure = (fissure[0], fissure[1] * head.inside[fissure[0]] * np.clip(0.5 + 0.8 * make_noise(rng, fissure[1].shape, 0.12 * head.scale), 0, 1))
        strength = float(rng.uniform(0.3, 0.6)) + 0.35 * a
        head.blend(fissure, CSF + 3, strength)
        head.cover(head.cistern, fissure, strength)
        line = head.make_capsule((0, y0), (0, y1), 0.005, 0.008)
        head.blend((line[0], line[1] * head.inside[line[0]]), dura, bright)


def _draw_sinuses(head: Head) -> None:
    """Venous blood under the skull is as bright as a thin bleed: both classes have it."""
    rng, level = head.rng, head.traits.level
    blood = VENOUS_BLOOD + float(rng.uniform(-10, 10))
    middle = _ANGLES // 4
    front, back = float(head.inner_table[middle]), float(head.inner_table[3 * middle])
    if level >= 0.40:
        size = float(rng.uniform(0.02, 0.045))
        area = head.make_ellipse((0, back - size * 0.6), size, size * 1.3)
        head.blend((area[0], area[1] * head.inside[area[0]]), blood)
        if level > 0.6:
            area = head.make_ellipse((0, -front + size * 0.3), size * 0.6, size * 0.8)
            head.blend((area[0], area[1] * head.inside[area[0]]), blood)
    elif level >= BASE_LEVEL:
        side = 1.0 if rng.random() < 0.6 else -1.0
        span = np.abs(np.arctan2(head.y, head.x * np.float32(side)) - np.float32(0.95))
        strip = head.soften(np.float32(rng.uniform(0.015, 0.04)) - head.depth) * (span < 0.45) * head.inside
        head.blend(_whole(strip.astype(np.float32)), blood, 0.9)


def _draw_calcifications(head: Head) -> None:
    rng, level = head.rng, head.traits.level
    if 0.47 < level < 0.64 and rng.random() < 0.55:
        for side in (-1.0, 1.0):
            if rng.random() < 0.8:
                spot = (side * rng.uniform(0.2, 0.26), rng.uniform(0.22, 0.34))
                head.blend(head.make_ellipse(spot, rng.uniform(0.012, 0.04), rng.uniform(0.012, 0.05), rough=0.4), float(rng.uniform(80, 250)))
    if 0.45 < level < 0.53 and rng.random() < 0.6:
        head.blend(head.make_ellipse((rng.normal(0, 0.01), 0.20), rng.uniform(0.012, 0.03), rng.uniform(0.012, 0.03)), CALCIFICATION)
    if 0.46 < level < 0.56 and rng.random() < 0.12:
        for side in (-1.0, 1.0):
            head.blend(head.make_ellipse((side * 0.26, -0.06), 0.03, 0.06, rough=0.5), float(rng.uniform(55, 120)), 0.8)
    if level > 0.5 and rng.random() < 0.06:  # ossified falx
        y = float(rng.uniform(-0.75, -0.5)) * head.bulk
        head.blend(head.make_capsule((0, y), (0, y + 0.1), 0.014, 0.01), 300.0)
    if rng.random() < 0.04:  # the tip of a drain: metal-bright, on either class
        x, y = float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-0.3, 0.1))
        area = head.make_ellipse((x, y), 0.016, 0.016)
        head.blend((area[0], area[1] * head.inside[area[0]]), 400.0)


def _draw_frontal_sinus(head: Head) -> None:
    rng = head.rng
    front = float(head.outer_table[_ANGLES // 4])
    for _ in range(int(rng.integers(1, 5))):
        x = float(rng.normal(0, 0.12))
        thick = head.traits.thickness
        bone = head.make_ellipse((x, -front + thick * 0.9), 0.10, thick * 1.1)
        head.cover(head.bone, bone)
        area = head.make_ellipse((x, -front + thick * 0.9), float(rng.uniform(0.02, 0.07)), thick * float(rng.uniform(0.3, 0.6)), rough=0.2)
        head.bone[area[0]] *= 1 - area[1]
        head.blend(area, AIR)


def _draw_air_cells(head: Head) -> None:
    """Mastoid air cells: black specks inside the petrous bones."""
    rng = head.rng
    for side in (-1.0, 1.0):
        centre = (side * 0.60, 0.15)
        window, mask = head.make_ellipse(centre, 0.16, 0.13, rough=0.2)
        if not mask.size:
            continue
        specks = np.clip(make_noise(rng, mask.shape, max(1.5, 0.035 * head.scale)) * 3 + np.float32(rng.uniform(-2, 1)), 0, 1)
        head.blend((window, mask * specks * head.bone[window]), AIR)
