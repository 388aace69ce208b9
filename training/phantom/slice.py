"""One synthetic head-CT slice: a patient's head at one level, with or without a lesion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.phantom.anatomy import draw_anatomy
from training.phantom.head import BASE_LEVEL, Head, Push, measure_size
from training.phantom.lesions import HAEMORRHAGES, KINDS, draw_level, plan_lesion
from training.phantom.painting import paint_lesion
from training.phantom.patient import Patient
from training.phantom.recipe import Recipe
from training.phantom.render import render_slice
from training.phantom.skull import lay_bone
from training.phantom.texture import Field

MINIMUM_SIZE = 64
_ATTEMPTS = 12
_VISIBLE_AREA = 0.0005  # of the slice: 33 pixels of 256 x 256, a bleed of about 6 mm
_VISIBLE_CONTRAST = 4.0  # HU between the lesion and what was there before


@dataclass(frozen=True)
class Slice:
    """One slice: windowed pixels, where its lesion is (nowhere for normals), its kind and its anatomical level."""

    pixels: NDArray[np.uint8]
    lesion: NDArray[np.bool_]
    kind: str | None
    level: float


def generate_slice(
    rng: np.random.Generator,
    *,
    kind: str | None,
    size: int = 256,
    recipe: Recipe | None = None,
    patient: Patient | None = None,
) -> Slice:
    """Draw one slice; kind None is a slice without a lesion.

    Args:
        rng: decides everything: two equal streams give the same slice.
        kind: one of ``KINDS``, or None.
        size: side in pixels, at least ``MINIMUM_SIZE``.
        recipe: what to draw, all of it unless told; ignored where a patient is given.
        patient: whose head it is; a new one unless told.

    Raises:
        ValueError: unknown kind or too small a size.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be None or one of {', '.join(KINDS)}, not {kind!r}")
    if size < MINIMUM_SIZE:
        raise ValueError(f"size must be at least {MINIMUM_SIZE}, not {size}")
    patient = patient or Patient(int(rng.integers(1 << 62)), recipe or Recipe())
    for attempt in range(_ATTEMPTS):
        level = draw_level(rng, kind) if kind else _draw_normal_level(rng)
        head, lesion, contrast = _draw_head(rng, patient, kind, level, size, attempt)
        if kind is None or (lesion.sum() >= _VISIBLE_AREA * size * size and contrast >= _VISIBLE_CONTRAST):
            break
    mask = np.zeros((size, size), dtype=bool)
    mask[head.top : head.top + head.shape[0], head.left : head.left + head.shape[1]] = lesion
    return Slice(render_slice(head, patient, rng, size), mask, kind, round(level, 4))


def _draw_normal_level(rng: np.random.Generator) -> float:
    """Mostly the levels of the lesions, so that the amount of brain does not give the class away."""
    if rng.random() < 0.15:
        low = rng.random() < 0.65
        return float(rng.uniform(0.0, BASE_LEVEL) if low else rng.uniform(0.93, 1.02))
    kind = "infarct" if rng.random() < 0.2 else HAEMORRHAGES[int(rng.integers(len(HAEMORRHAGES)))]
    return draw_level(rng, kind)


def _draw_head(
    rng: np.random.Generator, patient: Patient, kind: str | None, level: float, size: int, attempt: int
) -> tuple[Head, NDArray[np.bool_], float]:
    """A head in HU, the mask of its lesion on the head's grid, and the lesion's mean contrast in HU."""
    # The lesion of a patient is planned from the patient's own stream: it stays in place from slice to slice.
    plan = plan_lesion(patient.open_stream("lesion", attempt), kind, level) if kind else None
    pose = patient.pose
    scale = size * pose.scale
    low = 0.25 * (1 - measure_size(level)) * scale if "pose" in patient.parts else 0.0  # the vertex lies on its rest
    head = Head(
        rng,
        patient.open_stream("skull"),
        replace(patient.traits, level=level),
        (size * pose.x, size * pose.y + low),
        scale,
        pose.tilt,
        size,
        plan.push if plan else Push(),
    )
    draw_anatomy(head, patient)
    if plan is None:
        lay_bone(head, patient)
        return head, np.zeros(head.shape, dtype=bool), 0.0
    before = head.hu.copy()
    mask: Field = paint_lesion(head, plan)
    after = head.hu.copy()
    lay_bone(head, patient)
    hit = mask * (1 - np.clip(head.bone, 0, 1)) > 0.5
    contrast = float(np.abs(after - before)[hit].mean()) if hit.any() else 0.0
    return head, hit, contrast
