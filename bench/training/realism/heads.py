"""Heads as the generator draws them, before noise and window, and what is drawn into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.phantom.anatomy.brain import draw_anatomy
from training.phantom.anatomy.skull import lay_bone
from training.phantom.head import HALF_LENGTH_MM, Head, Push
from training.phantom.lesions import Plan, plan_lesion
from training.phantom.painting import paint_lesion
from training.phantom.patient import Patient
from training.phantom.recipe import Recipe
from training.phantom.texture import Field

SEED = 31
"""Of the heads: no training, calibration, ablation or other page draws from it."""

SIZE = 256
"""Side of a slice in pixels, as models are trained."""

HEALTHY = Recipe().leave_out(
    ["calcification", "metal", "drain", "surgery", "swelling", "tumour", "old_infarct", "white_matter", "bright_dura"]
)
"""Without what would lie in the regions of interest; everything else is drawn as it is with it."""


@dataclass(frozen=True)
class Drawing:
    """One head, upright in the middle of the field; fields are float32 on the head's grid, in HU or shares."""

    head: Head

    before: Field
    """HU without the lesion, before the bone is laid."""

    after: Field
    """HU with the lesion, before the bone is laid."""

    lesion: Field
    """The lesion's share of each pixel."""

    plan: Plan | None

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel by the generator's own scale."""
        return HALF_LENGTH_MM / self.head.scale


def list_patients(count: int, recipe: Recipe = HEALTHY, parts: Sequence[str] = ()) -> Iterator[Patient]:
    """The first patients of the seed; with ``parts``, those who have them all."""
    index = 0
    while count:
        patient = Patient(int(np.random.default_rng([SEED, index]).integers(1 << 62)), recipe)
        index += 1
        if patient.parts.issuperset(parts):
            count -= 1
            yield patient


def draw_head(patient: Patient, level: float, kind: str | None = None) -> Drawing:
    """Draws a head at a level; the same patient and level give the same head, whatever its recipe leaves out."""
    rng = np.random.default_rng([patient.key, round(1000 * level)])
    plan = plan_lesion(patient.open_stream("lesion"), kind, level) if kind else None
    head = Head(
        rng,
        patient.open_stream("skull"),
        replace(patient.traits, level=level),
        (SIZE / 2, SIZE / 2),
        SIZE * patient.pose.scale,
        0.0,
        SIZE,
        plan.push if plan else Push(),
    )
    draw_anatomy(head, patient)
    before = head.hu.copy()
    lesion = paint_lesion(head, plan) if plan else np.zeros_like(before)
    after = head.hu.copy()
    lay_bone(head, patient)
    return Drawing(head, before, after, lesion, plan)
