"""Findings inside the skull that are no stroke but look like one, or distract: each as likely in either class."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from training.phantom.head import BASE_LEVEL, CALCIFICATION, CSF, METAL, Head, measure_distance, measure_size, whole
from training.phantom.patient import Patient
from training.phantom.texture import make_noise


def draw_findings(head: Head, patient: Patient) -> None:
    """Draw those of the patient's findings which reach this level."""
    for name, draw in (
        ("white_matter", _draw_white_matter),
        ("old_infarct", _draw_old_infarct),
        ("dense_vessels", _draw_vessels),
        ("calcification", _draw_calcifications),
        ("tumour", _draw_tumour),
        ("drain", _draw_drain),
        ("metal", _draw_metal),
    ):
        if name in patient.parts:
            with head.borrow(patient.open_stream(name)):
                draw(head)


def _draw_white_matter(head: Head) -> None:
    level, rng = head.traits.level, head.rng
    if not 0.45 < level < 0.85:
        return
    wide = float(rng.uniform(0.07, 0.14))
    ax, ay = np.abs(head.bx), np.abs(head.by)
    centre = 0.2 if level < 0.69 else 0.26
    halo = np.exp(-(((ax - np.float32(centre)) * np.float32(1 / wide)) ** 2) - ((ay - np.float32(0.3)) * 5) ** 2)
    halo *= head.inside * np.clip((head.depth - np.float32(0.15)) * 8, 0, 1) * (1 - head.ventricle)
    halo *= np.clip(np.float32(0.8) + np.float32(0.5) * head.take_noise(), 0, 1)
    head.blend(whole(halo), 20.0, float(rng.uniform(0.3, 0.9)))


def _draw_old_infarct(head: Head) -> None:
    """A defect of fluid, at the cortex or a lacune in the depth."""
    rng, level = head.rng, head.traits.level
    side = -1.0 if rng.random() < 0.5 else 1.0
    if rng.random() < 0.4:
        if not 0.42 < level < 0.68:
            return
        spot = (side * float(rng.uniform(0.14, 0.32)), float(rng.uniform(-0.2, 0.2)))
        area = head.make_ellipse(spot, float(rng.uniform(0.015, 0.035)), float(rng.uniform(0.015, 0.05)), rough=0.3)
        head.blend((area[0], area[1] * head.inside[area[0]]), CSF + 6, float(rng.uniform(0.5, 1)))
        return
    angle, reach = float(rng.uniform(-1.4, 1.4)), float(rng.uniform(0.12, 0.35))
    bulk = measure_size(level)
    x, y = np.float32(side * 0.8 * bulk * np.cos(angle)), np.float32(bulk * np.sin(angle))
    if level < BASE_LEVEL:
        x, y = np.float32(side * 0.3), np.float32(0.55)
        reach *= 0.6
    near = np.float32(reach) * (1 + np.float32(0.3) * head.take_noise()) - measure_distance(head.x - x, head.y - y)
    rim = np.clip(near * 8 + np.float32(0.9), 0, 1) * head.inside
    head.blend(whole(rim), 20.0, 0.6)
    core = head.soften(near, 0.05) * head.inside
    head.blend(whole(core), CSF + float(rng.uniform(0, 6)), float(rng.uniform(0.75, 1)))


def _draw_vessels(head: Head) -> None:
    """Middle cerebral and basilar arteries, brighter than brain, as in thick blood or hardened walls."""
    rng, level = head.rng, head.traits.level
    density, thick = float(rng.uniform(50, 72)), float(rng.uniform(0.010, 0.019))
    if not 0.31 < level < 0.46:
        return
    head.blend(head.make_ellipse((float(rng.normal(0, 0.015)), -0.05), thick * 1.4, thick * 1.4), density, 0.95)
    share = float(rng.uniform(0.4, 1.0))
    for side in (-1.0, 1.0):
        knots = [(0.09, -0.15), (0.20, -0.17 + rng.normal(0, 0.012)), (0.32, -0.20 + rng.normal(0, 0.015))]
        if rng.random() < 0.15:
            continue
        for start, end in pairwise(knots):
            a, b = (side * float(start[0]), float(start[1])), (side * float(end[0]), float(end[1]))
            head.blend(head.make_capsule(a, b, thick, thick * 0.8), density, share)


def _draw_calcifications(head: Head) -> None:
    rng, level = head.rng, head.traits.level
    plexus, pineal, nuclei, falx = (
        bool(chance < share) for chance, share in zip(rng.random(4), (0.75, 0.75, 0.2, 0.12), strict=True)
    )
    if plexus and 0.47 < level < 0.64:
        for side in (-1.0, 1.0):
            if rng.random() < 0.85:
                spot = (side * rng.uniform(0.2, 0.27), rng.uniform(0.22, 0.34))
                area = head.make_ellipse(spot, rng.uniform(0.012, 0.045), rng.uniform(0.012, 0.055), rough=0.4)
                head.blend(area, float(rng.uniform(60, 250)))
    if pineal and 0.45 < level < 0.53:
        spot = (rng.normal(0, 0.012), 0.20)
        head.blend(head.make_ellipse(spot, rng.uniform(0.012, 0.03), rng.uniform(0.012, 0.03)), CALCIFICATION)
    if nuclei and 0.46 < level < 0.56:
        for side in (-1.0, 1.0):
            area = head.make_ellipse((side * 0.26, -0.06), rng.uniform(0.015, 0.04), 0.06, side * -0.3, 0.5)
            head.blend(area, float(rng.uniform(52, 120)), 0.8)
    if falx and level > 0.5:
        y = float(rng.uniform(-0.8, -0.4)) * head.bulk
        head.blend(head.make_capsule((0, y), (0, y + rng.uniform(0.03, 0.2)), 0.016, 0.01), float(rng.uniform(90, 400)))


def _draw_tumour(head: Head) -> None:
    """A dense or calcified mass on the dura, or a dark one inside the brain."""
    rng, level = head.rng, head.traits.level
    reach = float(rng.uniform(0.2, 0.6))  # how far it extends over the levels
    centre = float(rng.uniform(0.3, 0.9))
    if level < BASE_LEVEL or abs(level - centre) > reach / 2:
        return
    side, angle = (-1.0 if rng.random() < 0.5 else 1.0), float(rng.uniform(-1.4, 1.4))
    radius = float(rng.uniform(0.06, 0.20)) * min(1.0, head.bulk + 0.1)
    if rng.random() < 0.55:
        room = head.bulk * 0.97 - 0.13 - 0.5 * radius
        spot = (side * room * 0.84 * float(np.cos(angle)), room * float(np.sin(angle)))
        if rng.random() < 0.25:
            spot = (side * 0.6 * radius, room * float(np.sign(np.sin(angle))))  # on the falx
        window, mask = head.make_ellipse(spot, radius, radius * float(rng.uniform(0.7, 1)), rough=0.05, edge=0.02)
        halo = head.make_ellipse(spot, radius * 1.5, radius * 1.5, rough=0.2, edge=0.15)
        head.blend((halo[0], halo[1] * head.inside[halo[0]]), 21.0, float(rng.choice([0.0, rng.uniform(0.2, 0.7)])))
        density = float(rng.uniform(40, 56) if rng.random() < 0.7 else rng.uniform(70, 200))
        value = np.float32(density) + np.float32(0.06 * density) * head.take_noise()[window]
        head.blend((window, mask * head.inside[window]), value)
        return
    spot = (side * float(rng.uniform(0.2, 0.45)) * head.bulk, float(rng.uniform(-0.5, 0.5)) * head.bulk)
    window, mask = head.make_ellipse(spot, radius * 1.3, radius * 1.1, angle, rough=0.3, edge=0.08)
    if not mask.size:
        return
    mottle = make_noise(rng, (mask.shape[0], mask.shape[1]), max(2.0, 0.5 * radius * head.scale))
    value = np.float32(rng.uniform(17, 27)) + np.float32(rng.uniform(0, 4)) * mottle
    head.blend((window, mask * head.inside[window] * (1 - head.ventricle[window])), value, 0.9)


def _draw_drain(head: Head) -> None:
    """A catheter to a frontal horn: its tip on end, or a length of it in the slice."""
    rng, level = head.rng, head.traits.level
    if not 0.45 < level < 0.92:
        return
    side = -1.0 if rng.random() < 0.5 else 1.0
    tip = (side * float(rng.uniform(0.02, 0.12)), float(rng.uniform(-0.25, -0.05)))
    entry = (side * 0.35 * head.bulk, -0.6 * head.bulk)
    high = float(np.clip((level - 0.5) / 0.4, 0, 1))
    at = (tip[0] + high * (entry[0] - tip[0]), tip[1] + high * (entry[1] - tip[1]))
    run = float(rng.choice([0.0, rng.uniform(0.05, 0.4)]))
    to = (at[0] + run * (entry[0] - tip[0]), at[1] + run * (entry[1] - tip[1]))
    window, mask = head.make_capsule(at, to, 0.014, 0.014)
    head.blend((window, mask * head.inside[window]), float(rng.uniform(150, 400)))
    if run == 0.0:
        window, mask = head.make_ellipse(at, 0.006, 0.006)
        head.blend((window, mask), 10.0, 0.7)


def _draw_metal(head: Head) -> None:
    """A clip or coil near the circle of Willis; its star of streaks is added to the finished slice."""
    rng, level = head.rng, head.traits.level
    if not 0.31 < level < 0.52:
        return
    spot = (float(rng.normal(0, 0.15)), float(rng.uniform(-0.3, -0.05)))
    radius = float(rng.uniform(0.012, 0.05))
    clip = head.make_ellipse(spot, radius, radius * float(rng.uniform(0.4, 1)), float(rng.uniform(0, 3)), 0.3)
    head.blend(clip, METAL)
    head.add_star(spot, radius, float(rng.uniform(8, 45)))
