"""The brain of a synthetic axial head-CT slice, level by level, in Hounsfield units; it is no real person's brain.

What lies between brain and skull comes last: falx, venous sinuses, and bone that is only partly in the slice.
"""

from __future__ import annotations

import numpy as np

from training.phantom.anatomy.face import draw_face
from training.phantom.anatomy.findings import draw_findings
from training.phantom.anatomy.fossa import draw_fossa, draw_midbrain
from training.phantom.anatomy.skull import draw_scalp, shape_skull_base
from training.phantom.head import (
    BASE_LEVEL,
    CSF,
    DURA,
    FACE_LEVEL,
    GREY_MATTER,
    VENOUS_BLOOD,
    WHITE_MATTER,
    Head,
    whole,
)
from training.phantom.patient import Patient
from training.phantom.texture import ANGLES, Field, make_folds

_DEPTHS = 64  # entries of the folds' table over the depth under the skull
_DEEPEST = 0.45  # head units that the table covers


def draw_anatomy(head: Head, patient: Patient) -> None:
    """Draw everything a head has at its level except a lesion and the bone, which covers both."""
    level = head.traits.level
    draw_scalp(head, patient)
    if level < FACE_LEVEL:
        draw_face(head, patient)
        return
    if level < BASE_LEVEL:
        shape_skull_base(head)
    _draw_parenchyma(head)
    if level < 0.37:
        draw_fossa(head, patient)
    elif level < 0.46:
        draw_midbrain(head, patient)
    elif level < 0.58:
        _draw_thalamus(head)
    elif level < 0.69:
        _draw_bodies(head)
    if 0.37 <= level < 0.58:
        for side in (-1.0, 1.0):
            _draw_sylvian(head, side)
    _draw_fluid(head)
    if level >= 0.36:
        _draw_falx(head, patient)
    draw_findings(head, patient)
    _draw_sinuses(head, patient)
    if head.collection is not None:  # fluid or air under a surgeon's opening
        thick, value = head.collection
        head.blend(whole(head.soften(thick.take(head.angle_index) - head.depth) * head.inside), value)
    _draw_caps(head, patient)


def _measure_cortex(head: Head) -> tuple[Field, Field]:
    """The fold at each pixel (0 in the middle of a sulcus) and the distance to the brain's nearest surface."""
    depth = head.depth
    surface = depth
    if head.traits.level > 0.46:  # the medial surface of the hemispheres is cortex as well
        medial = head.off_midline + np.float32(0.02)
        if head.traits.level < 0.69:
            medial = medial + np.clip(np.float32(0.42) - np.abs(head.by), 0, 1)  # not where ventricles are
        surface = np.minimum(depth, medial)
    fold = head.take_noise() * np.float32(0.9)
    if head.traits.level > BASE_LEVEL:
        # A gyrus is about a tenth of a head long; sulci run inwards from the skull, so the noise is longer that way.
        angular = ANGLES * 0.085 / (5.3 * max(0.35, head.bulk))
        table = make_folds(head.rng, angular * float(head.rng.uniform(0.85, 1.25)), 26.0, _DEPTHS)
        row = head.angle_index + (np.float32(0.35 * angular) * head.take_noise(broad=True)).astype(np.intp)
        row += int(head.rng.integers(ANGLES))
        row &= ANGLES - 1
        row *= _DEPTHS
        row += np.clip(depth * np.float32(_DEPTHS / _DEEPEST), 0, _DEPTHS - 1).astype(np.intp)
        outer = np.clip((np.float32(0.30) - depth) * np.float32(6), 0, np.float32(0.8))  # no gyrus is a spoke
        fold += outer * (table.take(row) - fold)
    return np.abs(fold, out=fold) * np.float32(0.62), surface


def _draw_parenchyma(head: Head) -> None:
    traits, rng = head.traits, head.rng
    fold, surface = _measure_cortex(head)
    deep = np.clip((head.depth - np.float32(0.20)) * np.float32(9), 0, 1)
    if traits.level < 0.37:  # little white matter is cut at the base
        deep *= 0.5
    ribbon = 0.045 + 0.025 * rng.random()  # thickness of the cortex, seen through 5 mm
    white = np.clip((fold - np.float32(0.30)) * np.float32(3.2), 0, 1)
    white *= np.clip((surface - np.float32(ribbon)) * np.float32(28), 0, 1)
    white *= np.float32(rng.uniform(0.45, 0.95))
    deep *= np.clip((surface - np.float32(ribbon)) * np.float32(20), 0, np.float32(0.92))
    np.maximum(white, deep, out=white)
    mid = 0.5 * (WHITE_MATTER + GREY_MATTER) + traits.brightness
    half = 0.5 * traits.contrast * (GREY_MATTER - WHITE_MATTER)
    white *= np.float32(-2 * half)
    white += np.float32(mid + half)
    white += np.float32(0.8) * head.take_noise(broad=True)
    head.blend(whole(head.inside), white)
    _open_sulci(head, fold, surface)


def _open_sulci(head: Head, fold: Field, surface: Field) -> None:
    """Sulci follow the folds from the surface inwards, wider and deeper with age and towards the vertex."""
    traits, rng = head.traits, head.rng
    limit = 0.07 + 0.15 * traits.atrophy + 0.06 * rng.random()
    width = 0.045 + 0.19 * traits.atrophy**1.5 + 0.05 * rng.random()
    faint = 0.35 + 0.6 * traits.atrophy
    if traits.level > 0.7:
        rise = min(1.0, (traits.level - 0.7) / 0.15)
        limit *= 1 + 0.8 * rise
        width += 0.03 * rise
        faint += 0.2 * rise
    sulci = np.clip((np.float32(width) - fold) * np.float32(7) + np.float32(0.35), 0, 1)
    sulci *= np.clip((np.float32(limit) - surface) * np.float32(14), 0, 1)
    sulci *= np.clip(head.take_noise(broad=True) + np.float32(0.75), 0, 1)
    sulci *= np.float32(min(1.0, faint))
    rim = head.soften(np.float32(0.004 + 0.03 * traits.atrophy * rng.uniform(0.3, 1.0)) - head.depth)
    rim *= np.float32(0.7)
    np.maximum(sulci, rim, out=sulci)
    np.maximum(head.cistern, sulci, out=head.cistern)


def _draw_fluid(head: Head) -> None:
    csf = CSF + float(head.rng.uniform(-4, 4))
    head.cistern *= head.inside
    head.ventricle *= head.inside
    head.blend(whole(head.cistern), csf)
    head.blend(whole(head.ventricle), csf)


def _draw_thalamus(head: Head) -> None:
    rng, v = head.rng, head.traits.ventricles
    rise = (head.traits.level - 0.46) / 0.12
    grey = GREY_MATTER + 0.5 + head.traits.brightness
    clear = min(1.0, 0.45 + 0.55 * head.traits.contrast)
    for side in (-1.0, 1.0):
        u = v * float(rng.uniform(0.88, 1.12))
        head.blend(head.make_ellipse((side * 0.30, -0.06), 0.085, 0.20, side * -0.30, 0.15, 0.05), grey, 0.8 * clear)
        head.blend(  # the insula, outside the external capsule
            head.make_capsule((side * 0.42, -0.20), (side * 0.44, 0.10), 0.022, 0.022, 0.03), grey, 0.8 * clear
        )
        thalamus = head.make_ellipse((side * (0.11 + 0.02 * u), 0.07), 0.095, 0.15, side * -0.45, 0.1, 0.06)
        head.blend(thalamus, grey, 0.7 * clear)
        caudate = head.make_ellipse((side * (0.12 + 0.04 * u), -0.28), 0.07, 0.11, side * 0.3, 0.1, 0.04)
        head.blend(caudate, grey, 0.8 * clear)
        head.cover(
            head.ventricle,
            head.make_capsule((side * 0.035, -0.16), (side * (0.06 + 0.055 * u), -0.40), 0.018 * u, 0.036 * u),
        )
        head.cover(
            head.ventricle,
            head.make_capsule((side * 0.24, 0.24), (side * 0.27, 0.36 + 0.14 * u * rng.random()), 0.034 * u, 0.022 * u),
            0.5 + 0.5 * min(1.0, u),
        )
        if rise > 0.5:
            head.cover(head.ventricle, head.make_capsule((side * 0.12, 0.14), (side * 0.24, 0.26), 0.02 * u, 0.034 * u))
    head.cover(head.ventricle, head.make_capsule((0, -0.07), (0, 0.13), 0.011 * v + 0.004, 0.014 * v + 0.004))
    head.cover(head.cistern, head.make_ellipse((0, 0.235), 0.06 + 0.03 * v, 0.022 + 0.012 * v))


def _draw_sylvian(head: Head, side: float) -> None:
    """The fissure over the insula: a bent line of uneven width, faint in the young."""
    a, rng = head.traits.atrophy, head.rng
    wide = 0.004 + 0.030 * a * float(rng.uniform(0.5, 1.3))
    faint = float(rng.uniform(0.15, 0.5)) + 0.5 * a
    x, y = 0.46 + float(rng.normal(0, 0.02)), float(rng.normal(-0.06, 0.03))
    knots = [
        (x + 0.22, y - 0.16),
        (x + 0.05, y - 0.13),
        (x - 0.01, y - 0.03),
        (x, y + 0.08),
        (x + 0.06, y + 0.16),
        (x + 0.2, y + 0.2),
    ]
    widths = [wide * float(w) for w in rng.uniform(0.3, 1.5, len(knots))]
    for k in range(len(knots) - 1):
        (x0, y0), (x1, y1) = knots[k], knots[k + 1]
        area = head.make_capsule((side * x0, y0), (side * x1, y1), widths[k], widths[k + 1], 0.03)
        head.cover(head.cistern, area, faint * float(rng.uniform(0.4, 1.0)))


def _draw_bodies(head: Head) -> None:
    rng, v = head.rng, head.traits.ventricles
    high = (head.traits.level - 0.58) / 0.11
    grey = GREY_MATTER + head.traits.brightness
    for side in (-1.0, 1.0):
        u = v * float(rng.uniform(0.85, 1.15)) * (1 - 0.35 * high)
        gap = 0.045 + 0.03 * high
        caudate = head.make_ellipse((side * (gap + 0.09 * u), -0.16), 0.045, 0.2, side * 0.15, 0.1, 0.03)
        head.blend(caudate, grey, 0.7)
        head.cover(
            head.ventricle, head.make_capsule((side * (gap + 0.05), -0.36), (side * gap, -0.08), 0.026 * u, 0.036 * u)
        )
        head.cover(
            head.ventricle, head.make_capsule((side * gap, -0.08), (side * (0.12 + gap), 0.20), 0.036 * u, 0.036 * u)
        )
        head.cover(
            head.ventricle,
            head.make_capsule((side * (0.12 + gap), 0.20), (side * 0.24, 0.36), 0.040 * u, 0.026 * u),
            max(0.0, 1 - high),
        )


def _draw_falx(head: Head, patient: Patient) -> None:
    """The fissure between the hemispheres, and the falx in it: thin and faint, or bright as in many old people."""
    rng, a = head.rng, head.traits.atrophy
    reach = 1.1
    gaps = [(-reach, -0.34), (0.36, reach)] if head.traits.level < 0.69 else [(-reach, reach)]
    thick, bright = 0.006, float(rng.uniform(0.1, 0.6))
    dura = DURA + float(rng.uniform(-8, 6))
    if "bright_dura" in patient.parts:
        own = patient.open_stream("bright_dura")
        thick, bright, dura = float(own.uniform(0.007, 0.016)), float(own.uniform(0.65, 1)), float(own.uniform(56, 78))
    for y0, y1 in gaps:
        if y0 > 0 and head.traits.level < 0.46:
            continue
        window = head.find_window(((0.0, y0), (0.0, y1)), 0.1)
        y, off = head.by[window], head.off_midline[window]
        along = head.soften(y - np.float32(y0)) * head.soften(np.float32(y1) - y) * head.inside[window]
        patchy = np.clip(np.float32(0.5) + head.take_noise()[window], 0, 1)
        fissure = window, head.soften(np.float32(0.010 + 0.022 * a) - off, 0.018) * along * patchy
        strength = float(rng.uniform(0.3, 0.6)) + 0.35 * a
        head.blend(fissure, CSF + 3, strength)
        head.cover(head.cistern, fissure, strength)
        head.blend((window, head.soften(np.float32(thick) - off, 0.018) * along), dura, bright)


def _draw_sinuses(head: Head, patient: Patient) -> None:
    """Venous blood under the skull is as bright as a thin bleed."""
    if "sinuses" not in patient.parts or head.traits.level < BASE_LEVEL:
        return
    rng, level = patient.open_stream("sinuses"), head.traits.level
    blood = VENOUS_BLOOD + float(rng.uniform(-12, 12))
    size = float(rng.uniform(0.02, 0.05))
    middle = ANGLES // 4
    front, back = float(head.inner_table[middle]), float(head.inner_table[3 * middle])
    if level >= 0.40:
        window, mask = head.make_capsule((0, back + size), (0, back - 1.6 * size), size * 1.5, size * 0.3)
        head.blend((window, mask * head.inside[window]), blood)
        if level > 0.6:
            window, mask = head.make_ellipse((0, -front + size * 0.3), size * 0.7, size * 0.9)
            head.blend((window, mask * head.inside[window]), blood)
    if level < 0.44:  # transverse and sigmoid sinuses, the right one usually wider
        angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
        thick = np.zeros(ANGLES)
        wide = float(rng.uniform(0.02, 0.05))
        for side, share in ((1.0, 1.0), (-1.0, float(rng.uniform(0.1, 1.1)))):
            centre = np.pi / 2 - side * (1.0 if level < 0.36 else 0.55)
            thick = np.maximum(thick, wide * share * (1 - ((angle - centre) / 0.42) ** 2))
        strip = head.soften(np.clip(thick, -0.02, 1).astype(np.float32).take(head.angle_index) - head.depth)
        strip *= head.inside
        strip *= head.y > 0.1
        head.blend(whole(strip), blood, 0.9)


def _draw_caps(head: Head, patient: Patient) -> None:
    """Slanted bone fades into the slice: a lining or a cap along the skull that brightens towards the bone."""
    if "caps" not in patient.parts or head.traits.level < BASE_LEVEL:
        return
    rng, level = patient.open_stream("caps"), head.traits.level
    angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    reach = np.full(ANGLES, 0.012)
    slanted = level > 0.78 or level < 0.42  # vertex and base meet the slice at a slant
    for _ in range(int(rng.integers(1, 4))):
        away = np.abs((angle - rng.uniform(-np.pi, np.pi) + np.pi) % (2 * np.pi) - np.pi)
        height = rng.uniform(0.03, 0.10) if slanted else rng.uniform(0.01, 0.04)
        reach += height * np.clip(1 - (away / rng.uniform(0.2, 0.9)) ** 2, 0, 1)
    far = np.maximum(head.depth, 0) / reach.astype(np.float32).take(head.angle_index)
    glow = np.clip(1 - far, 0, 1)
    glow *= glow
    glow *= head.inside
    glow *= np.float32(rng.uniform(15, 80))
    head.hu += glow
