"""Skull, scalp, skull base and face of a synthetic head, in Hounsfield units; the brain inside is drawn elsewhere."""

from __future__ import annotations

import numpy as np

from training.head import (
    AIR,
    ANGLES,
    BASE_LEVEL,
    BONE,
    CSF,
    FACE_LEVEL,
    FAT,
    MUSCLE,
    Head,
    make_noise,
    make_profile,
    whole,
)


def draw_scalp(head: Head) -> None:
    rng = head.rng
    table = rng.uniform(0.03, 0.075) * (1 + make_profile(rng, 0.5, range(1, 5)))
    swelling = np.zeros(ANGLES, dtype=np.float32)
    if rng.random() < 0.15:  # a bruise of the scalp says nothing about the brain: both classes have it
        angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
        swelling = (
            rng.uniform(0.03, 0.09) * np.exp(-(((angle - rng.uniform(-2.8, 2.8)) / rng.uniform(0.15, 0.5)) ** 2))
        ).astype(np.float32)
    scalp = (np.clip(table, 0.015, 0.2).astype(np.float32) + swelling)[head.angle_index]
    head.blend(whole(head.soften(scalp - head.outside)), FAT)
    skin = head.soften(np.float32(0.008) - np.abs(head.outside - scalp + np.float32(0.008)))
    head.blend(whole(skin), 20.0, float(rng.uniform(0.5, 1.0)))
    if swelling.any():
        head.blend(whole(head.soften(swelling[head.angle_index] - head.outside) * (head.outside > 0)), 52.0, 0.95)
    if head.traits.level < 0.52:  # temporalis and neck muscles outside the skull
        for side in (-1.0, 1.0):
            reach = 0.05 + 0.35 * max(0.0, 0.45 - head.traits.level)
            bump = np.float32(reach * rng.uniform(0.5, 1.0)) * np.exp(
                -(((head.y + np.float32(0.25)) / np.float32(0.28)) ** 2)
            )
            muscle = head.soften(bump - head.outside) * (head.x * side > 0) * (head.outside > -0.02)
            head.blend(whole(muscle), MUSCLE)


def lay_bone(head: Head) -> None:
    """Lay the vault and the bones of the base over brain and lesion."""
    if head.traits.level >= BASE_LEVEL:
        vault = head.soften(-head.outside) * (1 - head.inside)
        np.maximum(head.bone, vault, out=head.bone)
        if head.traits.level < 0.46 and head.rng.random() < 0.6:
            _draw_frontal_sinus(head)
    head.hu += head.bone * (np.float32(BONE) - head.hu)
    if head.traits.level < 0.40:
        _draw_air_cells(head)


def shape_skull_base(head: Head) -> None:
    """Reduce the brain's cavity to three fossae; the rest becomes bone, air cells, orbits and muscle."""
    t = (head.traits.level - FACE_LEVEL) / (BASE_LEVEL - FACE_LEVEL)
    cavity, rim = np.zeros(head.shape, dtype=np.float32), np.zeros(head.shape, dtype=np.float32)
    back = (0.0, 0.42)
    fossae = [(back, 0.28 + 0.26 * t, 0.22 + 0.16 * t)]
    if t > 0.25:
        fossae += [((side * 0.42, -0.17), 0.10 + 0.13 * t, 0.10 + 0.16 * t) for side in (-1.0, 1.0)]
    if t > 0.8:
        fossae += [((0.0, -0.62), 0.3, 0.2)]
    wall = head.traits.thickness
    for centre, rx, ry in fossae:
        head.cover(cavity, head.make_ellipse(centre, rx, ry, rough=0.06))
        head.cover(rim, head.make_ellipse(centre, rx + wall * 1.3, ry + wall * 1.3, rough=0.05))
    mix = np.float32(0.65) * head.take_noise()
    within = head.soften(-head.outside)
    filling = np.where(mix > 0.35, np.float32(MUSCLE), np.float32(FAT))
    head.blend(whole(within), filling.astype(np.float32))
    middle = within * np.clip(1.3 - 3.2 * np.hypot(head.x * np.float32(0.75), head.y + np.float32(0.08)), 0, 1)
    np.maximum(head.bone, np.clip(middle * 2.5 + mix - 0.6, 0, 1) * within, out=head.bone)
    for side in (-1.0, 1.0):
        head.cover(head.bone, head.make_capsule((side * 0.62, 0.14), (side * 0.18, 0.0), 0.14, 0.09))
    np.maximum(head.bone, rim * within, out=head.bone)
    head.bone *= 1 - cavity
    _draw_orbits(head, 0.30 + 0.5 * t)
    head.inside = cavity * head.soften(-head.outside - np.float32(0.5 * wall))
    head.depth = np.minimum(head.depth, (cavity - np.float32(0.5)) * np.float32(0.2))


def _draw_orbits(head: Head, open_front: float) -> None:
    rng = head.rng
    globe = float(0.135 * rng.uniform(0.9, 1.1))
    nose = head.make_capsule((0, -1.08), (0, -0.55), 0.05, 0.16)
    head.blend(nose, AIR)
    head.bone[nose[0]] *= 1 - nose[1]
    septa = np.clip(np.float32(0.9) - np.float32(6) * np.abs(head.take_noise()), 0, 1).astype(np.float32)
    head.cover(head.bone, (nose[0], nose[1] * septa[nose[0]]))
    for side in (-1.0, 1.0):
        cone = head.make_capsule((side * 0.34, -0.80), (side * 0.20, -0.42), 0.20, 0.04, 0.0)
        rim = head.make_capsule((side * 0.34, -0.76), (side * 0.20, -0.42), 0.235, 0.08)
        head.cover(head.bone, rim, float(np.clip(open_front + 0.5, 0, 1)))
        head.bone[cone[0]] *= 1 - cone[1]
        head.blend(cone, FAT)
        head.blend(head.make_ellipse((side * 0.35, -0.84), globe, globe), 45.0)
        head.blend(head.make_ellipse((side * 0.35, -0.84), globe * 0.86, globe * 0.86), 12.0)
        head.blend(head.make_ellipse((side * 0.35, -0.84 - 0.75 * globe), globe * 0.4, globe * 0.2), 75.0)
        for x in (0.24, 0.33, 0.42):
            head.blend(head.make_capsule((side * x, -0.72), (side * 0.21, -0.46), 0.018, 0.012), 45.0)


def draw_face(head: Head) -> None:
    """Below the skull base: muscle, fat, airway, jaw and the top of the spine; hardly any brain."""
    rng = head.rng
    within = head.soften(-head.outside)
    mix = np.float32(0.65) * head.take_noise()
    head.blend(whole(within), np.where(mix > -0.1, np.float32(MUSCLE), np.float32(FAT)).astype(np.float32))
    low = rng.random() < 0.5
    for side in (-1.0, 1.0):
        head.cover(head.bone, head.make_capsule((side * 0.10, -0.92), (side * 0.50, -0.25), 0.06, 0.05), 1.0)
        head.cover(head.bone, head.make_ellipse((side * 0.50, 0.16), 0.13, 0.11, rough=0.3))
        if not low:
            sinus = head.make_ellipse((side * 0.30, -0.55), 0.15, 0.19, rough=0.1)
            wall = head.make_ellipse((side * 0.30, -0.55), 0.185, 0.225, rough=0.1)
            head.cover(head.bone, wall)
            head.bone[sinus[0]] *= 1 - sinus[1]
            head.blend(sinus, AIR)
    airway = head.make_capsule((0, -0.95 if not low else -0.2), (0, -0.12), 0.05, 0.10)
    head.blend(airway, AIR)
    head.bone[airway[0]] *= 1 - airway[1]
    outer = head.make_ellipse((0, 0.40), 0.27, 0.22, rough=0.12)
    canal = head.make_ellipse((0, 0.42), 0.14, 0.12)
    head.cover(head.bone, outer)
    head.bone[canal[0]] *= 1 - canal[1]
    head.blend(canal, CSF + 5)
    head.blend(head.make_ellipse((0, 0.41), 0.09, 0.07), 34.0)
    head.bone *= within
    head.inside = np.zeros(head.shape, dtype=np.float32)


def _draw_frontal_sinus(head: Head) -> None:
    rng = head.rng
    front = float(head.outer_table[ANGLES // 4])
    for _ in range(int(rng.integers(1, 5))):
        x = float(rng.normal(0, 0.12))
        thick = head.traits.thickness
        window, bone = head.make_ellipse((x, -front + thick * 1.1), 0.10, thick * 1.1)
        head.cover(head.bone, (window, bone * (head.outside[window] < 0)))
        area = head.make_ellipse(
            (x, -front + thick * 1.0), float(rng.uniform(0.02, 0.07)), thick * float(rng.uniform(0.3, 0.6)), rough=0.2
        )
        head.bone[area[0]] *= 1 - area[1]
        head.blend(area, AIR)


def _draw_air_cells(head: Head) -> None:
    """Mastoid air cells: black specks inside the petrous bones."""
    rng = head.rng
    for side in (-1.0, 1.0):
        centre = (side * 0.60, 0.15)
        window, mask = head.make_ellipse(centre, 0.16, 0.13, rough=0.2)
        if not mask.size:
            continue
        specks = np.clip(
            make_noise(rng, mask.shape, max(1.5, 0.035 * head.scale)) * 3 + np.float32(rng.uniform(-2, 1)), 0, 1
        )
        head.blend((window, mask * specks * head.bone[window]), AIR)
