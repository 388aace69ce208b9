"""The brain of a synthetic axial head-CT slice, level by level, in Hounsfield units; it is no real person's brain."""

from __future__ import annotations

import numpy as np

from training.head import (
    ANGLES,
    BASE_LEVEL,
    CALCIFICATION,
    CSF,
    DURA,
    FACE_LEVEL,
    GREY_MATTER,
    VENOUS_BLOOD,
    WHITE_MATTER,
    Head,
    whole,
)
from training.skull import draw_face, draw_scalp, shape_skull_base


def draw_anatomy(head: Head) -> None:
    """Draw everything a head has at its level except a lesion and the bone, which covers both."""
    level = head.traits.level
    draw_scalp(head)
    if level < FACE_LEVEL:
        draw_face(head)
        return
    if level < BASE_LEVEL:
        shape_skull_base(head)
    _draw_parenchyma(head)
    if level < BASE_LEVEL:
        _draw_cerebellum(head, 0.14, 0.44)
        head.cover(head.ventricle, head.make_ellipse((0, 0.30), 0.035, 0.03))
    elif level < 0.37:
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


def _draw_parenchyma(head: Head) -> None:
    traits, rng = head.traits, head.rng
    fold = np.float32(0.62) * np.abs(head.take_noise())
    depth = head.depth
    deep = np.clip((depth - np.float32(0.20)) * np.float32(9), 0, 1)
    if traits.level < 0.37:  # little white matter is cut at the base
        deep *= 0.5
    white = np.clip((fold - np.float32(0.34)) * np.float32(2.6), 0, 1) * np.clip(
        (depth - np.float32(0.05)) * np.float32(25), 0, 1
    )
    white = np.maximum(white * np.float32(rng.uniform(0.35, 0.8)), deep * np.float32(0.92))
    mid = 0.5 * (WHITE_MATTER + GREY_MATTER)
    half = 0.5 * traits.contrast * (GREY_MATTER - WHITE_MATTER)
    tissue = np.float32(mid + half) - white * np.float32(2 * half)
    tissue += np.float32(0.7) * head.take_noise(broad=True)
    head.blend(whole(head.inside), tissue)
    if traits.atrophy > 0.55 and traits.level > 0.45 and rng.random() < 0.6:  # age-related white matter change
        halo = np.exp(
            -(((np.abs(head.bx) - np.float32(0.2)) / np.float32(0.12)) ** 2)
            - ((np.abs(head.by) - np.float32(0.3)) / np.float32(0.2)) ** 2
        )
        head.blend(whole(halo * deep * head.inside), 21.0, float(rng.uniform(0.2, 0.7)))
    # Sulci follow the folds from the surface inwards, wider and deeper with age.
    limit = 0.07 + 0.16 * traits.atrophy + 0.05 * rng.random()
    if traits.level > 0.75:
        limit *= 1.6
    width = 0.05 + 0.20 * traits.atrophy**1.5 + 0.05 * rng.random()
    near = np.clip((np.float32(limit) - depth) * np.float32(14), 0, 1)
    patchy = np.clip(head.take_noise(broad=True) + np.float32(0.6), 0, 1)
    sulci = np.clip((np.float32(width) - fold) * np.float32(7) + np.float32(0.35), 0, 1) * near * patchy
    rim = head.soften(np.float32(0.004 + 0.03 * traits.atrophy * rng.uniform(0.3, 1.0)) - depth)
    np.maximum(
        head.cistern,
        np.maximum(sulci * np.float32(0.35 + 0.6 * traits.atrophy), rim * np.float32(0.7)),
        out=head.cistern,
    )


def _draw_fluid(head: Head) -> None:
    csf = CSF + float(head.rng.uniform(-4, 4))
    head.cistern *= head.inside
    head.ventricle *= head.inside
    head.blend(whole(head.cistern), csf)
    head.blend(whole(head.ventricle), csf)


def _draw_thalamus(head: Head) -> None:
    rng, v = head.rng, head.traits.ventricles
    rise = (head.traits.level - 0.46) / 0.12
    grey = GREY_MATTER + 0.5
    for side in (-1.0, 1.0):
        u = v * float(rng.uniform(0.88, 1.12))
        head.blend(head.make_ellipse((side * 0.30, -0.06), 0.085, 0.20, side * -0.30, 0.15, 0.05), grey, 0.7)
        head.blend(
            head.make_ellipse((side * (0.11 + 0.02 * u), 0.07), 0.095, 0.15, side * -0.45, 0.1, 0.06), grey, 0.65
        )
        head.blend(head.make_ellipse((side * (0.12 + 0.04 * u), -0.28), 0.07, 0.11, side * 0.3, 0.1, 0.04), grey, 0.7)
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
        _draw_sylvian(head, side)
    head.cover(head.ventricle, head.make_capsule((0, -0.07), (0, 0.13), 0.011 * v + 0.004, 0.014 * v + 0.004))
    head.cover(head.cistern, head.make_ellipse((0, 0.235), 0.06 + 0.03 * v, 0.022 + 0.012 * v))


def _draw_sylvian(head: Head, side: float) -> None:
    """The fissure over the insula: a bent line of uneven width, faint in the young."""
    a, rng = head.traits.atrophy, head.rng
    wide = 0.004 + 0.030 * a * float(rng.uniform(0.5, 1.3))
    faint = float(rng.uniform(0.15, 0.5)) + 0.5 * a
    x, y = 0.43 + float(rng.normal(0, 0.02)), float(rng.normal(-0.06, 0.03))
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
    for side in (-1.0, 1.0):
        u = v * float(rng.uniform(0.85, 1.15)) * (1 - 0.35 * high)
        gap = 0.045 + 0.03 * high
        head.blend(
            head.make_ellipse((side * (gap + 0.09 * u), -0.16), 0.045, 0.2, side * 0.15, 0.1, 0.03), GREY_MATTER, 0.7
        )
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


def _draw_midbrain(head: Head) -> None:
    rng, a = head.rng, head.traits.atrophy
    w = 0.014 + 0.028 * a * float(rng.uniform(0.6, 1.2))
    opening = 0.55 + 0.45 * a
    head.cover(head.cistern, head.make_ellipse((0, -0.13), 0.06 + w, 0.05 + w, rough=0.15), opening)
    for x, y in ((0.0, -0.32), (0.26, -0.20), (-0.26, -0.20), (0.17, 0.0), (-0.17, 0.0)):
        head.cover(head.cistern, head.make_capsule((0.3 * x, -0.13), (x, y), w * 1.3, w * 0.7), opening)
    wide, long = 0.155 * float(rng.uniform(0.85, 1.15)), 0.15 * float(rng.uniform(0.85, 1.1))
    window, mask = head.make_ellipse((0, 0.09), wide + w, long + w, rough=0.1, edge=0.03)
    patchy = np.clip(np.float32(0.45 + 0.4 * a) + np.float32(0.4) * head.take_noise()[window], 0, 1)
    head.cover(head.cistern, (window, mask * patchy))
    core = head.make_ellipse((0, 0.08), wide - 0.3 * w, long - 0.3 * w, rough=0.08, edge=0.03)
    head.cistern[core[0]] *= 1 - core[1]
    head.blend(core, 33.0, 0.8)
    head.cover(head.cistern, head.make_capsule((-0.09, 0.27), (0.09, 0.27), 0.018 + w * 0.4, 0.018 + w * 0.4), opening)
    for side in (-1.0, 1.0):
        u = head.traits.ventricles
        head.cover(
            head.ventricle,
            head.make_capsule((side * 0.36, -0.10), (side * 0.34, 0.12), 0.012 * u, 0.017 * u),
            min(1.0, 0.4 + 0.4 * u),
        )
        _draw_sylvian(head, side)
    _draw_cerebellum(head, 0.30, 0.34)


def _draw_cerebellum(head: Head, top: float, width: float) -> None:
    """The cerebellum behind the tentorium: fine leaves, and bright dura along its edge."""
    rng = head.rng
    area = head.make_ellipse((0, top + 0.34), width * 1.25, 0.36, rough=0.05)
    window, mask = area
    leaves = np.sin(
        (head.by[window] * np.float32(1.0) + np.float32(0.35) * np.abs(head.bx[window]))
        * np.float32(rng.uniform(55, 75))
    )
    value = np.float32(36.0) + np.float32(1.6) * leaves + np.float32(1.0)
    mask = mask * head.inside[window]
    head.blend((window, mask), value.astype(np.float32), 0.9)
    head.cistern[window] *= 1 - mask * np.float32(0.75 - 0.4 * head.traits.atrophy)
    if rng.random() < 0.7:
        for side in (-1.0, 1.0):
            head.blend(
                head.make_capsule((side * 0.06, top + 0.03), (side * width, top + 0.32), 0.007, 0.010),
                DURA,
                float(rng.uniform(0.2, 0.7)),
            )


def _draw_fossa(head: Head) -> None:
    """Pons, fourth ventricle, cerebellum and the bones between the three cranial fossae."""
    rng, level, a = head.rng, head.traits.level, head.traits.atrophy
    _draw_cerebellum(head, 0.16, 0.44)
    opening = 0.5 + 0.5 * a
    head.cover(
        head.cistern, head.make_capsule((-0.16, -0.05), (0.16, -0.05), 0.02 + 0.03 * a, 0.02 + 0.03 * a), opening
    )
    head.cover(head.cistern, head.make_ellipse((0, -0.14), 0.07 + 0.05 * a, 0.06 + 0.04 * a, rough=0.15), opening)
    for side in (-1.0, 1.0):
        head.cover(
            head.cistern, head.make_capsule((side * 0.14, 0.0), (side * 0.25, 0.14), 0.02, 0.012 + 0.02 * a), opening
        )
    head.blend(head.make_ellipse((0, 0.08), 0.16, 0.135), 32.0, 0.8)
    v = float(rng.uniform(0.7, 1.3)) * (0.7 + 0.5 * a)
    head.cover(head.ventricle, head.make_ellipse((0, 0.25), 0.055 * v, 0.035 * v))
    low = max(0.0, (0.38 - level) / 0.08)
    for side in (-1.0, 1.0):
        tip = 0.10 + 0.25 * (1 - min(1.0, low)) * rng.random()
        head.cover(
            head.bone,
            head.make_capsule(
                (side * 0.80, 0.16 + 0.06 * rng.random()),
                (side * (tip + 0.05), -0.02),
                0.085 + 0.05 * low,
                0.022 + 0.02 * low,
            ),
        )
        if level < 0.35:
            head.cover(
                head.bone, head.make_capsule((side * 0.62, -0.46), (side * 0.16, -0.26), 0.05 + 0.03 * low, 0.03)
            )
        if level < 0.345 and rng.random() < 0.6:  # orbital roofs rise into the frontal lobes
            head.cover(head.bone, head.make_ellipse((side * 0.28, -0.62), 0.10 + 0.08 * rng.random(), 0.08, rough=0.4))
    if level < 0.36:
        for side in (-1.0, 1.0):
            head.cover(head.bone, head.make_ellipse((side * 0.09, -0.17), 0.035, 0.03))
        head.cover(head.bone, head.make_capsule((-0.10, -0.08), (0.10, -0.08), 0.02, 0.02))


def _draw_falx(head: Head) -> None:
    rng, a = head.rng, head.traits.atrophy
    reach = 1.1
    gaps = [(-reach, -0.34), (0.36, reach)] if head.traits.level < 0.69 else [(-reach, reach)]
    bright = float(rng.uniform(0.15, 0.75))
    dura = DURA + float(rng.uniform(-6, 12))
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
        head.blend((window, head.soften(np.float32(0.006) - off, 0.018) * along), dura, bright)


def _draw_sinuses(head: Head) -> None:
    """Venous blood under the skull is as bright as a thin bleed: both classes have it."""
    rng, level = head.rng, head.traits.level
    blood = VENOUS_BLOOD + float(rng.uniform(-10, 10))
    middle = ANGLES // 4
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
        head.blend(whole(strip.astype(np.float32)), blood, 0.9)


def _draw_calcifications(head: Head) -> None:
    rng, level = head.rng, head.traits.level
    if 0.47 < level < 0.64 and rng.random() < 0.45:
        for side in (-1.0, 1.0):
            if rng.random() < 0.8:
                spot = (side * rng.uniform(0.2, 0.26), rng.uniform(0.22, 0.34))
                head.blend(
                    head.make_ellipse(spot, rng.uniform(0.012, 0.04), rng.uniform(0.012, 0.05), rough=0.4),
                    float(rng.uniform(80, 250)),
                )
    if 0.45 < level < 0.53 and rng.random() < 0.6:
        head.blend(
            head.make_ellipse((rng.normal(0, 0.01), 0.20), rng.uniform(0.012, 0.03), rng.uniform(0.012, 0.03)),
            CALCIFICATION,
        )
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
