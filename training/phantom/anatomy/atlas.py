"""The brain of a synthetic head after the average of 152 people's: their grey and white matter, bent for each slice.

``icbm152.npz`` is made from the ICBM 2009a nonlinear symmetric template (Fonov et al., NeuroImage 2011;54:313-327,
doi:10.1016/j.neuroimage.2010.07.033) by ``make_atlas``: one of its two equal halves, at 1 mm. ``icbm152.txt`` is its
licence.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, map_coordinates, maximum_filter1d

from training.phantom.head import BASE_LEVEL, GREY_MATTER, HALF_LENGTH_MM, LEVEL_MM, WHITE_MATTER, Head, whole
from training.phantom.patient import Patient
from training.phantom.texture import ANGLES, Field

FILE = Path(__file__).with_name("icbm152.npz")
STEPS = 15
"""What a share of 1 is stored as."""
WALL, DURA = 12, 10
"""What a distance of 0 is stored as: from the ventricles' wall and from the dura."""
_MIDDLE_LEVEL_MM = 5.0  # height of level 0.5, the third ventricle, over the line of the commissures
_CENTRE_MM = -16.0  # of the whole brain, front to back
_RAYS = 128


Part = NDArray[np.uint8]


class Atlas(NamedTuple):
    """One half of the template, uint8 (left to middle, back to front, upwards) in voxels of 1 mm."""

    grey: Part  # share, of STEPS
    white: Part  # likewise
    ventricles: Part  # mm inside of their wall, and WALL
    cavity: Part  # mm inside of the dura, and DURA
    origin: NDArray[np.int16]  # index of the anterior commissure


@cache
def _load_atlas() -> Atlas:
    with np.load(FILE) as arrays:
        return Atlas(**arrays)


class Mapped(NamedTuple):
    """What the atlas has at each pixel of a head."""

    grey: Field  # share, 0 to 1
    white: Field  # likewise
    ventricles: Field  # mm inside of their wall
    cavity: Field  # mm inside of the dura


def map_atlas(head: Head, patient: Patient) -> Mapped:
    """Bend the atlas into a head: its cavity onto the skull's above the base, and everything a little.

    Args:
        head: whose skull is measured, and whose noise bends.
        patient: who leans the same way on each slice.

    Returns:
        Fields of the head's shape.
    """
    own = patient.open_stream("atlas")
    tilt = float(np.clip(own.normal(0.12, 0.12), -0.2, 0.45))  # of the gantry against the line of the commissures
    height = _MIDDLE_LEVEL_MM + (head.traits.level - 0.5) * LEVEL_MM + float(own.normal(0, 2))
    size = float(own.uniform(0.90, 1.0))
    roll = float(own.normal(0, 0.03))
    x, y = head.bx * np.float32(HALF_LENGTH_MM), head.by * np.float32(-HALF_LENGTH_MM)
    centre = _CENTRE_MM
    if head.traits.level >= BASE_LEVEL:
        centre, outline = _find_outline(height, tilt)
        skull = np.maximum(head.inner_table, np.float32(0.05)) * np.float32(HALF_LENGTH_MM)
        rim = np.float32(HALF_LENGTH_MM * (0.005 + 0.035 * head.traits.atrophy * float(head.rng.uniform(0.4, 1.0))))
        scale = gaussian_filter1d(outline / np.maximum(skull - rim, 3), 12, mode="wrap").astype(np.float32)
        factor = scale.take(head.angle_index)
        x, y = x * factor, y * factor
    else:
        x, y = x / np.float32(size), y / np.float32(size)
    bend = np.float32(head.rng.uniform(1.0, 3.0))
    z = np.float32(height) + np.float32(tilt) * y + np.float32(roll) * x + bend * head.take_noise(broad=True)
    atlas = _load_atlas()
    grey, white, ventricles, cavity = _take(atlas[:4], x, y + np.float32(centre), z)
    one = np.float32(1 / STEPS)
    return Mapped(grey * one, white * one, ventricles - np.float32(WALL), cavity - np.float32(DURA))


@cache
def _make_rays() -> tuple[Field, Field, Field]:
    angle = np.linspace(-np.pi, np.pi, _RAYS, endpoint=False, dtype=np.float32)[:, None]
    reach = np.arange(4, 112, 2, dtype=np.float32)
    return np.cos(angle) * reach, -np.sin(angle) * reach, reach


def _find_outline(height: float, tilt: float) -> tuple[float, Field]:
    """Centre of a plane's section of the cavity in mm, front to back, and its radius as a table over the angle."""
    cavity = (_load_atlas().cavity,)
    line = np.arange(-110, 80, 2, dtype=np.float32)
    beside = np.full_like(line, 12)  # millimetres from the middle, where hemispheres are highest
    middle = _take(cavity, beside, line, height + tilt * line)[0] > DURA
    centre = float(line[middle].mean()) if middle.any() else _CENTRE_MM - 10
    dx, dy, reach = _make_rays()
    inside = _take(cavity, dx, dy + np.float32(centre), np.float32(height) + np.float32(tilt) * dy)[0] >= DURA
    radius = np.maximum((inside * reach).max(axis=1), 8)
    radius = gaussian_filter1d(maximum_filter1d(radius, 9, mode="wrap"), 3, mode="wrap")
    angles = np.arange(ANGLES) * (_RAYS / ANGLES)
    return centre, np.interp(angles, np.arange(_RAYS + 1), np.append(radius, radius[0])).astype(np.float32)


def _take(parts: Sequence[Part], x: Field, y: Field, z: Field) -> list[Field]:
    """Linear between voxels, mirrored at the middle; x, y and z in mm from the commissure."""
    right, front, up = (np.float32(place) for place in _load_atlas().origin)
    places = np.stack((right - np.abs(x), front + y, up + z))
    return [map_coordinates(part, places, output=np.float32, order=1, mode="nearest") for part in parts]


def draw_mapped(head: Head, mapped: Mapped) -> None:
    """Lay the brain into the cavity, and mark its fluid, which is laid later."""
    traits, rng = head.traits, head.rng
    clear = np.float32(rng.uniform(1.0, 2.2))  # an average is softer than any of those people
    grey, white = mapped.grey**clear, mapped.white**clear
    fluid = np.clip(1 - mapped.grey - mapped.white, 0, 1) ** clear
    total = grey + white + fluid
    fluid /= total
    share = white / np.maximum(grey + white, np.float32(1e-3))
    share *= np.float32(rng.uniform(0.75, 1.0))
    mid = 0.5 * (WHITE_MATTER + GREY_MATTER) + traits.brightness
    half = 0.5 * traits.contrast * (GREY_MATTER - WHITE_MATTER)
    value: Field = (share * np.float32(-2 * half)).astype(np.float32, copy=False)
    value += np.float32(mid + half)
    value += np.float32(0.8) * head.take_noise(broad=True)
    head.blend(whole(head.inside), value)
    grow = 5.0 * (traits.ventricles - 1.0) * float(rng.uniform(0.8, 1.2))
    ventricle = np.clip((mapped.ventricles + np.float32(grow)) * np.float32(0.6) + np.float32(0.5), 0, 1)
    np.maximum(head.ventricle, ventricle, out=head.ventricle)
    a = traits.atrophy
    sulci = np.clip(fluid * np.float32(0.5 + 2.2 * a * rng.uniform(0.7, 1.2)) + np.float32(0.25 * a - 0.15), 0, 1)
    sulci *= np.clip(np.float32(0.9 + 0.3 * a) + np.float32(0.4) * head.take_noise(broad=True), 0, 1)
    sulci *= 1 - ventricle
    np.maximum(head.cistern, sulci, out=head.cistern)
