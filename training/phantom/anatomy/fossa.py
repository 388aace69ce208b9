"""Cerebellum, brain stem and basal cisterns of a synthetic head, from the skull base to the midbrain."""

from __future__ import annotations

import numpy as np

from training.phantom.head import BASE_LEVEL, DURA, GREY_MATTER, WHITE_MATTER, Head, measure_distance
from training.phantom.patient import Patient


def draw_fossa(head: Head, patient: Patient) -> None:
    """Medulla or pons, fourth ventricle, cerebellum, basal cisterns, and above the base the petrous ridges."""
    rng, level, a = head.rng, head.traits.level, head.traits.atrophy
    base = level < BASE_LEVEL
    _draw_cerebellum(head, patient, 0.14 if base else 0.16, 0.44)
    low = float(np.clip((BASE_LEVEL - level) / 0.17, 0, 1))
    opening = 0.5 + 0.5 * a
    wide = 0.16 - 0.06 * low
    stem = (0.0, 0.10 + 0.10 * low)
    ring = head.make_ellipse(stem, wide + 0.03 + 0.03 * a, 0.15 + 0.03 * a, rough=0.08, edge=0.03)
    head.cover(head.cistern, ring, opening * (0.5 + 0.4 * low))
    for side in (-1.0, 1.0):  # cerebellopontine angles
        angle = head.make_capsule((side * 0.14, 0.02), (side * 0.25, 0.14), 0.02, 0.012 + 0.02 * a)
        head.cover(head.cistern, angle, opening)
        # The middle cerebellar peduncle joins pons and cerebellum: no fluid between them there.
        bridge = head.make_capsule((side * 0.10, 0.14), (side * 0.26, 0.30), 0.07, 0.08, 0.04)
        head.blend(bridge, WHITE_MATTER + head.traits.brightness + 3, 0.6 * (1 - low))
        head.cistern[bridge[0]] *= 1 - bridge[1]
    core = head.make_ellipse(stem, wide, 0.125 - 0.03 * low, rough=0.05, edge=0.03)
    head.blend(core, 32.0 + head.traits.brightness, 0.8)
    head.cistern[core[0]] *= 1 - core[1]
    v = float(rng.uniform(0.7, 1.3)) * (0.7 + 0.5 * a)
    if level > 0.20:
        roof = head.make_ellipse((0, 0.265), 0.055 * v * (1 - 0.4 * low), 0.03 * v, rough=0.1)
        head.cover(head.ventricle, roof)
        head.cover(head.ventricle, head.make_capsule((0, 0.27), (0, 0.30), 0.02 * v, 0.012 * v))
    else:
        head.cover(head.cistern, head.make_capsule((0, 0.40), (0, 0.75), 0.01, 0.03 + 0.05 * a), opening)
    if base:
        return
    head.cover(
        head.cistern, head.make_capsule((-0.16, -0.05), (0.16, -0.05), 0.02 + 0.03 * a, 0.02 + 0.03 * a), opening
    )
    _draw_star(head, 5, 0.02 + 0.02 * a, opening)
    basilar = head.make_ellipse((float(rng.normal(0, 0.012)), -0.055), 0.018, 0.018)
    head.blend(basilar, 44.0, 0.8)
    _draw_ridges(head)


def draw_midbrain(head: Head, patient: Patient) -> None:
    """Midbrain, the star of cisterns in front of it, temporal horns and upper cerebellum."""
    rng, a = head.rng, head.traits.atrophy
    w = 0.014 + 0.028 * a * float(rng.uniform(0.6, 1.2))
    opening = 0.55 + 0.45 * a
    _draw_star(head, 6 if head.traits.level > 0.41 else 5, w, opening)
    wide, long = 0.155 * float(rng.uniform(0.85, 1.15)), 0.15 * float(rng.uniform(0.85, 1.1))
    window, mask = head.make_ellipse((0, 0.09), wide + w, long + w, rough=0.1, edge=0.03)
    patchy = np.clip(np.float32(0.45 + 0.4 * a) + np.float32(0.4) * head.take_noise()[window], 0, 1)
    head.cover(head.cistern, (window, mask * patchy))
    core = head.make_ellipse((0, 0.08), wide - 0.3 * w, long - 0.3 * w, rough=0.08, edge=0.03)
    head.cistern[core[0]] *= 1 - core[1]
    head.blend(core, 33.0 + head.traits.brightness, 0.8)
    notch = head.make_capsule((0, -0.07), (0, -0.03), 0.03, 0.02, 0.02)  # between the cerebral peduncles
    head.cover(head.cistern, notch, opening)
    head.cover(head.ventricle, head.make_ellipse((0, 0.175), 0.014, 0.014), 0.8)  # aqueduct
    head.cover(head.cistern, head.make_capsule((-0.09, 0.27), (0.09, 0.27), 0.018 + w * 0.4, 0.018 + w * 0.4), opening)
    u = head.traits.ventricles
    for side in (-1.0, 1.0):
        horn = head.make_capsule((side * 0.36, -0.10), (side * 0.34, 0.12), 0.012 * u, 0.017 * u)
        head.cover(head.ventricle, horn, min(1.0, 0.4 + 0.4 * u))
    _draw_cerebellum(head, patient, 0.30, 0.34)


def _draw_star(head: Head, points: int, width: float, opening: float) -> None:
    """The suprasellar cistern: one point to the front, two to the Sylvian fissures, two or three to the back."""
    head.cover(head.cistern, head.make_ellipse((0, -0.13), 0.06 + width, 0.05 + width, rough=0.15), opening)
    tips = [(0.0, -0.34), (0.28, -0.21), (-0.28, -0.21), (0.17, 0.0), (-0.17, 0.0), (0.0, -0.03)]
    for x, y in tips[:points]:
        head.cover(head.cistern, head.make_capsule((0.3 * x, -0.13), (x, y), width * 1.3, width * 0.7), opening)


def _draw_cerebellum(head: Head, patient: Patient, top: float, width: float) -> None:
    """Two hemispheres with white cores and fine leaves, the vermis between them, and the tentorium's bright edge."""
    rng, a, traits = head.rng, head.traits.atrophy, head.traits
    window, mask = head.make_ellipse((0, top + 0.34), width * 1.25, 0.36, rough=0.05)
    mask = mask * head.inside[window]
    x, y = np.abs(head.bx[window]), head.by[window]
    # Leaves are concentric around the core of each hemisphere.
    fromcore = measure_distance(x - np.float32(0.5 * width), (y - np.float32(top + 0.30)) * np.float32(0.8))
    leaves = np.sin(fromcore * np.float32(rng.uniform(70, 95)))
    value = leaves * np.float32(0.6 + 2.4 * a)
    value += np.float32(GREY_MATTER - 0.5 + traits.brightness)
    white = np.clip((np.float32(0.42 * width) - fromcore) * np.float32(12), 0, 1)
    value -= white * np.float32(0.75 * traits.contrast * (GREY_MATTER - WHITE_MATTER))
    head.blend((window, mask), value, 0.9)
    head.cistern[window] *= 1 - mask * np.float32(0.8 - 0.3 * a)
    vermis = np.clip(np.float32(0.05) - x, 0, np.float32(0.02)) * np.clip(leaves, 0, 1) * mask
    np.maximum(head.cistern[window], vermis * np.float32(10 + 20 * a), out=head.cistern[window])
    folia = np.clip(leaves - np.float32(1.15 - 0.5 * a), 0, 1) * mask * (1 - white)
    np.maximum(head.cistern[window], folia * np.float32(1.2 * a), out=head.cistern[window])
    if head.traits.level < BASE_LEVEL:
        return
    bright = "bright_dura" in patient.parts
    if rng.random() < 0.7 or bright:
        strength = float(rng.uniform(0.6, 0.95) if bright else rng.uniform(0.1, 0.55))
        thick = 1.7 if bright else 1.0
        for side in (-1.0, 1.0):
            edge = head.make_capsule(
                (side * 0.06, top + 0.03), (side * width * 1.15, top + 0.36), 0.006 * thick, 0.010 * thick
            )
            head.blend((edge[0], edge[1] * head.inside[edge[0]]), DURA + (6.0 if bright else 0.0), strength)


def _draw_ridges(head: Head) -> None:
    """The bones between the three cranial fossae, where the slice cuts them."""
    rng, level = head.rng, head.traits.level
    for side in (-1.0, 1.0):
        low = max(0.0, (0.38 - level - side * head.traits.lean) / 0.08)
        tip = 0.10 + 0.25 * (1 - min(1.0, low)) * rng.random()
        petrous = head.make_capsule(
            (side * 0.80, 0.16 + 0.06 * rng.random()), (side * (tip + 0.05), -0.02), 0.085 + 0.05 * low, 0.03
        )
        head.cover(head.bone, petrous, float(np.clip(0.3 + 0.9 * low, 0, 1)))
        if level < 0.35:
            head.cover(
                head.bone, head.make_capsule((side * 0.62, -0.46), (side * 0.16, -0.26), 0.05 + 0.03 * low, 0.03)
            )
        if level < 0.345 and rng.random() < 0.6:  # orbital roofs rise into the frontal lobes
            roof = head.make_ellipse((side * 0.28, -0.62), 0.10 + 0.08 * rng.random(), 0.08, rough=0.4, edge=0.05)
            head.cover(head.bone, roof, float(rng.choice([0.05, 0.3, 1.0])))
    if level < 0.36:
        for side in (-1.0, 1.0):  # clinoid processes
            head.cover(head.bone, head.make_ellipse((side * 0.09, -0.17), 0.035, 0.03))
        head.cover(head.bone, head.make_capsule((-0.10, -0.08), (0.10, -0.08), 0.02, 0.02))
