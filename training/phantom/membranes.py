"""What lies between brain and skull: falx, venous sinuses, and bone that is only partly in the slice."""

from __future__ import annotations

import numpy as np

from training.phantom.head import BASE_LEVEL, CSF, DURA, VENOUS_BLOOD, Head, whole
from training.phantom.patient import Patient
from training.phantom.texture import ANGLES


def draw_falx(head: Head, patient: Patient) -> None:
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


def draw_sinuses(head: Head, patient: Patient) -> None:
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


def draw_caps(head: Head, patient: Patient) -> None:
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
