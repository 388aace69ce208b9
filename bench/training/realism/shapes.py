"""Sizes in a drawn head: thickness of the skull, ventricles, the head's outline, lesions."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from bench.training.realism.heads import SEED, SIZE, draw_head, list_patients
from training.phantom.head import HALF_LENGTH_MM
from training.phantom.lesions import HAEMORRHAGES, draw_level
from training.phantom.recipe import Recipe
from training.phantom.slice import generate_ct_slice
from training.phantom.texture import Field

Mask = NDArray[np.bool_]
Measured = tuple[str, float]
"""Name of a figure, and one value of it."""

SITES = {
    "skull, frontal": (0.50, (-pi / 2,)),
    "skull, temporal": (0.46, (-0.25, pi + 0.25)),
    "skull, occipital": (0.46, (pi / 2 - 0.5, pi / 2 + 0.5)),
}
"""Where the skull is measured: the level of the slice, and angles in radians: 0 is the right, pi / 2 the back."""

HORN_LEVEL = 0.55
"""Where the frontal horns are widest."""


def measure_skulls(count: int) -> Iterator[Measured]:
    """Thickness of the skull, Evans index, length of the skull and cranial index of normal heads."""
    for patient in list_patients(count):
        for site, (level, angles) in SITES.items():
            drawing = draw_head(patient, level)
            head = drawing.head
            centre = find_origin(head.x, head.y)
            yield site, drawing.pixel_mm * float(np.mean([measure_thickness(head.bone, centre, a) for a in angles]))
        drawing = draw_head(patient, HORN_LEVEL)
        head = drawing.head
        yield "Evans index", measure_evans(head.ventricle > 0.5, head.inside > 0.5, head.y < 0)
        outline = head.outside < 0
        length, width = measure_width(outline.T), measure_width(outline)
        yield "skull, length", length * drawing.pixel_mm
        yield "cranial index", 100 * width / length


def find_origin(x: Field, y: Field) -> tuple[float, float]:
    """Row and column at which an upright head's coordinates [H, W] are nought."""
    return (
        float(np.interp(0, y[:, 0], np.arange(y.shape[0]))),
        float(np.interp(0, x[0], np.arange(x.shape[1]))),
    )


def measure_thickness(bone: Field, centre: tuple[float, float], angle: float) -> float:
    """Pixels of bone along a ray from the centre: the sum of its shares, so it is finer than a pixel.

    Args:
        bone: share of each pixel, [H, W].
        centre: row and column.
        angle: of the ray; 0 points to the right, pi / 2 downwards.
    """
    step = 0.25
    along = np.arange(0, max(bone.shape), step)
    points = np.array([centre[0] + along * np.sin(angle), centre[1] + along * np.cos(angle)])
    return float(map_coordinates(bone, points, order=1, cval=0.0).sum() * step)


def measure_evans(ventricle: Mask, cavity: Mask, front: Mask) -> float:
    """Greatest width of the frontal horns by the greatest inner width of the skull; masks [H, W] of an upright head."""
    return measure_width(ventricle & front) / measure_width(cavity)


def measure_width(mask: Mask) -> int:
    """Greatest distance in a row between the first and the last pixel of a mask [H, W], both counted."""
    return max((measure_extent(row) for row in mask if row.any()), default=0)


def measure_extent(line: Mask) -> int:
    """From the first to the last True of a line [N], both counted; 0 where there is none."""
    found = np.flatnonzero(line)
    return int(found[-1] - found[0] + 1) if found.size else 0


def measure_lesions(count: int) -> Iterator[Measured]:
    """Areas of bleeds on the slices that are exported, and the thickness of subdural ones.

    The volume of a bleed in the brain is that of the ball which has the area as its greatest section: a slice through
    it elsewhere would make it larger.
    """
    for index, patient in enumerate(list_patients(count, Recipe())):
        kind = HAEMORRHAGES[index % len(HAEMORRHAGES)]
        item = generate_ct_slice(np.random.default_rng([SEED, index, 1]), kind=kind, size=SIZE, patient=patient)
        area = float(item.lesion.sum()) * (HALF_LENGTH_MM / (SIZE * patient.pose.scale)) ** 2
        yield f"area, {kind}", area / 100
        if kind == "intraparenchymal":
            yield "volume, intraparenchymal", measure_ball(area) / 1000
    for patient in list_patients(count // 2, Recipe()):
        rng = patient.open_stream("realism")
        drawing = draw_head(patient, draw_level(rng, "subdural"), "subdural")
        found = drawing.lesion > 0.5
        if drawing.plan and drawing.plan.place == "convexity" and found.sum() > 33:
            yield "thickness, subdural", HALF_LENGTH_MM * float(drawing.head.depth[found].max())


def measure_ball(area: float) -> float:
    """Volume of the ball whose greatest section has this area, in the unit of the area to the power of 1.5."""
    return float(4 / 3 * pi * (area / pi) ** 1.5)
