"""One synthetic head-CT slice: a patient's head at one level, with or without a lesion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.phantom.anatomy.brain import draw_anatomy
from training.phantom.anatomy.skull import lay_bone
from training.phantom.ct import Values, render_ct
from training.phantom.head import LEVEL_MM, Head, Push, measure_size
from training.phantom.lesions import HAEMORRHAGES, KINDS, draw_level, plan_lesion
from training.phantom.painting import paint_lesion
from training.phantom.patient import Patient
from training.phantom.recipe import Recipe
from training.phantom.render import render_slice
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


@dataclass(frozen=True)
class CtSlice:
    """One slice as a scanner stores it: CT values int16 in HU, and the rest as in ``Slice``."""

    values: Values
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
    patient = patient or Patient(int(rng.integers(1 << 62)), recipe or Recipe())
    head, lesion = _draw_visible(rng, patient, kind, size)
    return Slice(render_slice(head, patient, rng, size), lesion, kind, round(head.traits.level, 4))


def generate_ct_slice(rng: np.random.Generator, *, kind: str | None, size: int, patient: Patient) -> CtSlice:
    """Draw the slice that ``generate_slice`` draws, before any window.

    Raises:
        ValueError: as there.
    """
    head, lesion = _draw_visible(rng, patient, kind, size)
    return CtSlice(render_ct(head, patient, rng, size), lesion, kind, round(head.traits.level, 4))


def generate_ct_slice_at(
    rng: np.random.Generator, level: float, *, kind: str | None, size: int, patient: Patient
) -> CtSlice:
    """Draw one slice of a study; a lesion that would not be seen at this level is left out.

    Args:
        rng: what differs from slice to slice.
        level: where the slice is, see ``head``.
        kind: as in ``generate_slice``.
        size: likewise.
        patient: whose head it is, and whose lesion: in the same place on every slice.

    Raises:
        ValueError: as in ``generate_slice``.
    """
    _check(kind, size)
    before = rng.bit_generator.state
    head, lesion, is_visible = _draw_head(rng, patient, kind, level, size, 0)
    if not is_visible:
        kind, rng.bit_generator.state = None, before
        head, lesion, _ = _draw_head(rng, patient, None, level, size, 0)
    return CtSlice(render_ct(head, patient, rng, size), lesion, kind, round(level, 4))


def _check(kind: str | None, size: int) -> None:
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be None or one of {', '.join(KINDS)}, not {kind!r}")
    if size < MINIMUM_SIZE:
        raise ValueError(f"size must be at least {MINIMUM_SIZE}, not {size}")


def _draw_visible(
    rng: np.random.Generator, patient: Patient, kind: str | None, size: int
) -> tuple[Head, NDArray[np.bool_]]:
    """A head at a level where its lesion, if it has one, is seen; and that lesion's mask on the slice."""
    _check(kind, size)
    for attempt in range(_ATTEMPTS):
        level = draw_level(rng, kind) if kind else _draw_normal_level(rng)
        head, lesion, is_visible = _draw_head(rng, patient, kind, level, size, attempt)
        if is_visible:
            break
    return head, lesion


def _draw_normal_level(rng: np.random.Generator) -> float:
    """Half lie as a study's slices do, from the foramen magnum to above the vertex; half where lesions are seen, so
    that the amount of brain tells little of the class."""
    if rng.random() < 0.5:
        return float(rng.uniform(0.0, 1.02))
    kind = "infarct" if rng.random() < 0.2 else HAEMORRHAGES[int(rng.integers(len(HAEMORRHAGES)))]
    return draw_level(rng, kind)


def _draw_head(
    rng: np.random.Generator, patient: Patient, kind: str | None, level: float, size: int, attempt: int
) -> tuple[Head, NDArray[np.bool_], bool]:
    """A head in HU, the mask of its lesion on the slice, and whether that is seen; true without one."""
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
        patient.look.thickness / LEVEL_MM,
    )
    draw_anatomy(head, patient)
    mask = np.zeros((size, size), dtype=bool)
    if plan is None:
        lay_bone(head, patient)
        return head, mask, True
    before = head.hu.copy()
    painted: Field = paint_lesion(head, plan)
    after = head.hu.copy()
    lay_bone(head, patient)
    hit = painted * (1 - np.clip(head.bone, 0, 1)) > 0.5
    contrast = float(np.abs(after - before)[hit].mean()) if hit.any() else 0.0
    mask[head.top : head.top + head.shape[0], head.left : head.left + head.shape[1]] = hit
    return head, mask, bool(hit.sum() >= _VISIBLE_AREA * size * size and contrast >= _VISIBLE_CONTRAST)
