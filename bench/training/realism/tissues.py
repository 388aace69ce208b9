"""CT values of tissues and lesions in drawn heads, in HU, in regions where a radiologist would measure them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from bench.training.realism.heads import HEALTHY, Drawing, draw_head, list_patients
from bench.training.realism.shapes import Mask, Measured
from training.phantom.head import Point
from training.phantom.lesions import KINDS, draw_level
from training.phantom.patient import Patient
from training.phantom.recipe import Recipe
from training.phantom.texture import Field

NUCLEI_LEVEL, VENTRICLE_LEVEL, SINUS_LEVEL, MUSCLE_LEVEL, FALX_LEVEL = 0.52, 0.62, 0.66, 0.40, 0.75

GREY = ((0.30, -0.06), (0.12, 0.07))
"""Lentiform nucleus and thalamus of the right side, in the head's own coordinates; the left is their mirror."""

WHITE = ((0.25, -0.50),)
"""Frontal white matter, beside the frontal horn."""

RADIUS = 0.03
"""Of the regions: 2.7 mm."""

LEAST_LESION = 33
"""Pixels, as many as the generator asks for."""

ACUTE, CHRONIC = 52.0, 28.0
"""HU that a subdural bleed was planned with: above the one it is fresh, below the other chronic. All others are fresh,
a quarter of them faint."""


def measure_tissues(count: int) -> Iterator[Measured]:
    """Grey and white matter, fluid, fat, muscle and venous blood of normal heads."""
    for patient in list_patients(count):
        head = draw_head(patient, NUCLEI_LEVEL).head
        grey = average_regions(head.hu, head.bx, head.by, GREY)
        white = average_regions(head.hu, head.bx, head.by, WHITE)
        yield "grey matter", grey
        yield "white matter", white
        yield "grey less white matter", grey - white
        yield "grey to white matter", grey / white
        head = draw_head(patient, VENTRICLE_LEVEL).head
        if (fluid := head.ventricle > 0.98).any():
            yield "cerebrospinal fluid", float(head.hu[fluid].mean())
        head = draw_head(patient, MUSCLE_LEVEL).head
        even = find_even(head.hu, 3.0) & (head.outside > 0)
        for name, low, high in (("fat", -140, -50), ("muscle", 35, 80)):
            if (found := even & (head.hu > low) & (head.hu < high)).any():
                yield name, float(head.hu[found].mean())
    for patient in list_patients(count, parts=["sinuses"]):
        head = draw_head(patient, SINUS_LEVEL).head
        bare = draw_head(Patient(patient.key, HEALTHY.leave_out(["sinuses"])), SINUS_LEVEL).head
        core = find_even(head.hu, 6.0) & (np.abs(head.hu - bare.hu) > 3) & (head.y > 0)
        if core.any():
            yield "superior sagittal sinus", float(head.hu[core].mean())


def average_regions(values: Field, x: Field, y: Field, centres: tuple[Point, ...], radius: float = RADIUS) -> float:
    """Mean of values [H, W] over discs and their mirror images.

    Args:
        values: what is averaged.
        x: coordinates of the pixels, [H, W]; nought in the middle.
        y: likewise.
        centres: of the discs on the right side.
        radius: in the unit of the coordinates.
    """
    near = np.zeros(values.shape, dtype=bool)
    for cx, cy in centres:
        near |= (np.abs(x) - cx) ** 2 + (y - cy) ** 2 < radius**2
    return float(values[near].mean())


def find_even(values: Field, spread: float) -> Mask:
    """Pixels whose neighbourhood of 3 x 3 spans less than ``spread``: no edge and no partial volume is near."""
    even: Mask = maximum_filter(values, 3) - minimum_filter(values, 3) < spread
    return even


def measure_lesion_densities(count: int) -> Iterator[Measured]:
    """CT values in the core of bleeds and infarcts, and how much darker an infarct is than the brain it was."""
    for index, patient in enumerate(list_patients(count, Recipe())):
        kind = KINDS[index % len(KINDS)]
        drawing = draw_head(patient, draw_level(patient.open_stream("realism"), kind), kind)
        core = drawing.lesion > 0.9
        if drawing.plan is None or core.sum() < LEAST_LESION:
            continue
        value = float(drawing.after[core].mean())
        if kind == "infarct":
            yield "infarct", value
            yield "infarct, fall", float((drawing.before - drawing.after)[core].mean())
        else:
            yield f"{name_age(kind, drawing.plan.density)}, {kind}", value


def name_age(kind: str, density: float) -> str:
    """Acute, subacute or chronic, by the HU that a bleed was planned with."""
    if kind != "subdural" or density >= ACUTE:
        return "acute"
    return "subacute" if density >= CHRONIC else "chronic"


def measure_calcifications(count: int) -> Iterator[Measured]:
    """Which heads have calcifications, at the levels where they are drawn, and how dense these are.

    Each head is drawn with and without them: what differs is calcified.
    """
    plain = Recipe().leave_out(["calcification"])
    for patient, without in zip(list_patients(count, Recipe()), list_patients(count, plain), strict=True):
        drawing, bare = draw_head(patient, 0.50), draw_head(without, 0.50)
        found = find_added(drawing, bare)
        x, y = np.abs(drawing.head.bx), drawing.head.by
        for name, place in (
            ("pineal gland calcified", (x < 0.08) & (y > 0.12) & (y < 0.28)),
            ("choroid plexus calcified", (x > 0.14) & (y > 0.14)),
            ("basal ganglia calcified", (x > 0.14) & (y < 0.10)),
        ):
            yield name, float((found & place).any())
        if found.any():
            yield "calcification", float(drawing.after[found].max())
        yield "falx calcified", float(find_added(draw_head(patient, FALX_LEVEL), draw_head(without, FALX_LEVEL)).any())


def find_added(drawing: Drawing, bare: Drawing) -> Mask:
    """Pixels that are at least 10 HU denser in one drawing than in the other, [H, W]."""
    added: Mask = drawing.after - bare.after > 10
    return added
