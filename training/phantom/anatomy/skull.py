"""Scalp, vault and skull base of a synthetic head, in Hounsfield units; the brain inside is drawn elsewhere."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

from training.phantom.head import AIR, BASE_LEVEL, BONE, FACE_LEVEL, FAT, MUSCLE, Head, measure_distance, whole
from training.phantom.patient import Patient
from training.phantom.texture import ANGLES, Field, make_noise, make_profile

_SLANTED = 0.42
"""Below this level the bones of base and face lie at a slant to the slice."""


def draw_scalp(head: Head, patient: Patient) -> None:
    """Skin, fat and the muscles outside the skull; then a bruise, and what surgery left."""
    rng = patient.open_stream("scalp")
    table = np.clip(np.float32(rng.uniform(0.025, 0.07)) * (1 + make_profile(rng, 0.5, range(1, 5))), 0.012, 0.2)
    bruise: Field = np.zeros(ANGLES, dtype=np.float32)
    if "swelling" in patient.parts:
        own = patient.open_stream("swelling")
        place, width = float(own.uniform(-np.pi, np.pi)), float(own.uniform(0.15, 0.5))
        bruise = np.float32(own.uniform(0.03, 0.09)) * _make_bump(place, width)
    if "surgery" in patient.parts and head.traits.level > BASE_LEVEL:
        bruise = np.maximum(bruise, _open_skull(head, patient.open_stream("surgery")))
    scalp = (table + bruise).take(head.angle_index)
    outside = head.outside
    head.blend(whole(head.soften(scalp - outside)), FAT)
    skin = head.soften(np.float32(0.008) - np.abs(outside - scalp + np.float32(0.008)))
    head.blend(whole(skin), 20.0, float(rng.uniform(0.5, 1.0)))
    galea = head.soften(np.float32(0.007) - np.abs(outside - np.float32(0.008)))
    head.blend(whole(galea), 30.0, float(rng.uniform(0.2, 0.9)))
    if bruise.any():
        swollen = head.soften(bruise.take(head.angle_index) - outside) * (outside > 0)
        head.blend(whole(swollen), 52.0, 0.95)
    if head.traits.level < 0.55:
        _draw_temporalis(head)


def _make_bump(centre: float, width: float) -> Field:
    angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    away = np.abs((angle - centre + np.pi) % (2 * np.pi) - np.pi)
    return np.exp(-((away / width) ** 2)).astype(np.float32)


def _open_skull(head: Head, rng: np.random.Generator) -> Field:
    """Take bone away: a burr hole, the cuts around a flap, or a whole flap. Returns the swelling over it."""
    centre = float(np.pi / 2 + rng.choice([-1, 1]) * rng.uniform(0.6, 2.6))
    kind = str(rng.choice(["hole", "flap", "craniectomy"], p=[0.4, 0.4, 0.2]))
    width = float(rng.uniform(0.35, 0.8)) if kind != "hole" else 0.05
    angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    away = np.abs((angle - centre + np.pi) % (2 * np.pi) - np.pi)
    edge = np.abs(away - width) if kind == "flap" else away
    half = 0.03 if kind == "flap" else width
    head.gaps = np.clip((half - edge) * 60 + 0.5, 0, 1).astype(np.float32)
    # Below it fluid, air or thick dura; over it a swollen scalp.
    fluid = np.where(away < width * 1.1, rng.uniform(0.0, 0.05), -0.1).astype(np.float32)
    head.collection = (fluid, float(rng.choice([9.0, 25.0, AIR], p=[0.5, 0.3, 0.2])))
    return (rng.uniform(0.0, 0.06) * np.exp(-((away / (width + 0.15)) ** 4))).astype(np.float32)


def _draw_temporalis(head: Head) -> None:
    low = max(0.0, 0.47 - head.traits.level)
    left, right = ((0.03 + 0.38 * low) * head.rng.uniform(0.6, 1.0, 2)).astype(np.float32)
    bump = np.exp(-(((head.y + np.float32(0.28)) * np.float32(1 / 0.26)) ** 2))
    bump *= np.where(head.x > 0, right, left)
    bump -= head.outside
    bump -= np.float32(0.012)
    muscle = head.soften(bump)
    muscle *= head.outside > -0.02
    head.blend(whole(muscle), MUSCLE)


def lay_bone(head: Head, patient: Patient) -> None:
    """Lay the vault and the bones of the base over brain and lesion, each as far as it is in the slice."""
    if head.slice_pixels and head.traits.level < _SLANTED:
        rng = patient.open_stream("partial_volume")
        reach = int(0.5 * head.slice_pixels * float(rng.uniform(0.2, 0.8)) + 0.25)
        head.bone = uniform_filter(head.bone, 2 * reach + 1, mode="nearest")
    if head.traits.level >= BASE_LEVEL:
        vault = _cut_vault(head)
        if head.gaps is not None:
            gap = head.gaps.take(head.angle_index) * vault
            head.blend(whole(gap), 35.0)
            vault -= gap
        np.maximum(head.bone, vault, out=head.bone)
        if head.traits.level < 0.46:
            with head.borrow(patient.open_stream("sinus")):
                _draw_frontal_sinus(head)
    head.hu += head.bone * (np.float32(BONE) - head.hu)
    if head.traits.level < 0.40:
        with head.borrow(patient.open_stream("cells")):
            _draw_air_cells(head)


def _cut_vault(head: Head) -> Field:
    """The share of each pixel that the vault fills: within a slice's thickness it grows smaller towards the vertex."""
    small, large = head.slab
    middle, spread = np.float32((small + large) / 2 - 1), np.float32(large - small)
    outer, inner = (table.take(head.angle_index) for table in (head.outer_table, np.maximum(head.inner_table, 0)))
    vault = head.soften(middle * outer - head.outside, spread * outer)
    vault *= 1 - head.soften(head.depth + middle * inner, spread * inner)
    return vault


def shape_skull_base(head: Head) -> None:
    """Reduce the brain's cavity to the fossae; the rest becomes bone, air cells, orbits, fat and muscle."""
    rng = head.rng
    t = (head.traits.level - FACE_LEVEL) / (BASE_LEVEL - FACE_LEVEL)
    lean = head.traits.lean / (BASE_LEVEL - FACE_LEVEL)
    cavity, rim = np.zeros(head.shape, dtype=np.float32), np.zeros(head.shape, dtype=np.float32)
    fossae = [((0.0, 0.42), 0.28 + 0.30 * t, 0.22 + 0.20 * t)]
    if t > 0.2:  # temporal poles
        for side in (-1.0, 1.0):
            own = max(0.0, t + side * lean)
            fossae += [((side * 0.44, -0.15), 0.09 + 0.15 * own, 0.09 + 0.18 * own)]
    if t > 0.75:  # the gyri that lie on the orbital roofs
        fossae += [((side * 0.14, -0.64), 0.12 + 0.1 * t, 0.22) for side in (-1.0, 1.0)]
    wall = head.traits.thickness
    for centre, rx, ry in fossae:
        head.cover(cavity, head.make_ellipse(centre, rx, ry, rough=0.07))
        head.cover(rim, head.make_ellipse(centre, rx + wall * 1.2, ry + wall * 1.2, rough=0.05))
    within = head.soften(-head.outside)
    head.blend(whole(within), FAT)
    for side in (-1.0, 1.0):  # temporalis inside the zygoma, and the muscles of the neck below the occiput
        head.blend(head.make_ellipse((side * 0.62, -0.30), 0.12, 0.26, side * 0.15, 0.15), MUSCLE)
        if t < 0.7:
            head.blend(head.make_ellipse((side * 0.22, 0.86), 0.20, 0.12, 0.0, 0.2), MUSCLE)
    mix = np.float32(0.65) * head.take_noise()
    middle = within * np.clip(1.25 - 3.3 * measure_distance(head.x * np.float32(0.8), head.y + np.float32(0.10)), 0, 1)
    np.maximum(head.bone, np.clip(middle * 2.2 + mix - 0.6, 0, 1) * within, out=head.bone)
    for side in (-1.0, 1.0):
        head.cover(head.bone, head.make_capsule((side * 0.64, 0.16), (side * 0.15, -0.02), 0.15, 0.08))
        head.cover(head.bone, head.make_capsule((side * 0.30, -0.44), (side * 0.66, -0.52), 0.025, 0.03))  # sphenoid
        head.cover(head.bone, head.make_capsule((side * 0.66, -0.52), (side * 0.70, -0.20), 0.03, 0.02))  # zygoma
    np.maximum(head.bone, rim * within, out=head.bone)
    head.bone *= 1 - cavity
    _draw_orbits(head, 0.30 + 0.5 * t)
    sinus = head.make_ellipse((float(rng.normal(0, 0.03)), -0.27), 0.14 * rng.uniform(0.5, 1.1), 0.12, rough=0.15)
    _fill_with_air(head, sinus, 0.25)
    head.inside = cavity * head.soften(-head.outside - np.float32(0.5 * wall))
    np.minimum(head.depth, (cavity - np.float32(0.5)) * np.float32(0.2), out=head.depth)


def _fill_with_air(head: Head, area: tuple[tuple[slice, slice], Field], wet: float) -> None:
    """A sinus: air, or now and then fluid and swollen lining."""
    content = AIR if head.rng.random() > wet else float(head.rng.uniform(10, 45))
    head.bone[area[0]] *= 1 - area[1]
    head.blend(area, content)


def _draw_orbits(head: Head, open_front: float) -> None:
    rng = head.rng
    globe = float(0.135 * rng.uniform(0.9, 1.1))
    high = head.traits.level > 0.24
    nose = head.make_capsule((0, -0.98 if not high else -0.9), (0, -0.50), 0.09, 0.12)
    _fill_with_air(head, nose, 0.06)
    mask = nose[1]
    if mask.size:  # ethmoid cells: thin walls of bone
        noise = make_noise(rng, (mask.shape[0], mask.shape[1]), max(1.5, 0.055 * head.scale))
        septa = np.clip(np.float32(1.0) - np.float32(3.5) * np.abs(noise), 0, 1)
        head.cover(head.bone, (nose[0], mask * septa), 0.7)
    for side in (-1.0, 1.0):
        cone = head.make_capsule((side * 0.34, -0.80), (side * 0.20, -0.42), 0.20, 0.04, 0.0)
        rim = head.make_capsule((side * 0.34, -0.76), (side * 0.20, -0.42), 0.235, 0.08)
        head.cover(head.bone, rim, float(np.clip(open_front + 0.5, 0, 1)))
        head.bone[cone[0]] *= 1 - cone[1]
        head.blend(cone, FAT)
        eye = (side * 0.35, -0.84)
        head.blend(head.make_ellipse(eye, globe, globe), 45.0)
        head.blend(head.make_ellipse(eye, globe * 0.86, globe * 0.86), 12.0)
        head.blend(head.make_ellipse((eye[0], eye[1] - 0.75 * globe), globe * 0.4, globe * 0.2), 75.0)
        lid = head.make_capsule((side * 0.22, -0.99), (side * 0.48, -0.95), 0.03, 0.03)
        head.blend((lid[0], lid[1] * (head.hu[lid[0]] < 0)), 40.0)
        for x in (0.24, 0.33, 0.42):
            head.blend(head.make_capsule((side * x, -0.72), (side * 0.21, -0.46), 0.018, 0.012), 45.0)


def _draw_frontal_sinus(head: Head) -> None:
    rng = head.rng
    front = float(head.outer_table[ANGLES // 4])
    thick = head.traits.thickness
    for _ in range(max(0, int(rng.integers(-2, 5)))):
        x = float(rng.normal(0, 0.12))
        window, bone = head.make_ellipse((x, -front + thick * 1.1), 0.10, thick * 1.1)
        head.cover(head.bone, (window, bone * (head.outside[window] < 0)))
        area = head.make_ellipse(
            (x, -front + thick * 1.0), float(rng.uniform(0.02, 0.07)), thick * float(rng.uniform(0.3, 0.6)), rough=0.2
        )
        _fill_with_air(head, area, 0.1)


def _draw_air_cells(head: Head) -> None:
    """Mastoid air cells: black specks inside the petrous bones."""
    rng = head.rng
    share = float(rng.uniform(-2, 1))
    for side in (-1.0, 1.0):
        window, mask = head.make_ellipse((side * 0.62, 0.17), 0.19, 0.14, side * -0.5, rough=0.2)
        if not mask.size:
            continue
        shape = (mask.shape[0], mask.shape[1])
        specks = np.clip(make_noise(rng, shape, max(1.5, 0.035 * head.scale)) * 3 + np.float32(share), 0, 1)
        head.blend((window, mask * specks * head.bone[window]), AIR)
