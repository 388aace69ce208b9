"""The slices below the skull base: jaw, sinuses, muscles in fat, airway, and the top of the spine; hardly any brain."""

from __future__ import annotations

import numpy as np

from training.phantom.head import AIR, CSF, FAT, METAL, MUSCLE, Head, whole
from training.phantom.patient import Patient


def draw_face(head: Head, patient: Patient) -> None:
    """Draw the level of the maxillary sinuses (upper half) or of the teeth (lower half)."""
    rng = head.rng
    low = head.traits.level < 0.06
    within = head.soften(-head.outside)
    head.blend(whole(within), FAT)
    _draw_muscles(head)
    for side in (-1.0, 1.0):
        head.cover(head.bone, head.make_ellipse((side * 0.52, 0.18), 0.13, 0.12, rough=0.3))  # mastoid
        head.cover(head.bone, head.make_capsule((side * 0.58, -0.30), (side * 0.56, -0.06), 0.03, 0.05))  # ramus
        head.cover(head.bone, head.make_capsule((side * 0.20, -0.30), (side * 0.26, -0.16), 0.02, 0.015))  # pterygoid
        if not low:
            place, tall = (side * 0.30, -0.58), float(rng.uniform(0.15, 0.2))
            head.cover(head.bone, head.make_ellipse(place, 0.19, tall + 0.03, rough=0.1))
            sinus = head.make_ellipse(place, 0.165, tall, rough=0.1)
            head.bone[sinus[0]] *= 1 - sinus[1]
            head.blend(sinus, AIR if rng.random() > 0.2 else float(rng.uniform(10, 45)))
    if low:
        _draw_teeth(head, patient)
    else:
        nasal = head.make_capsule((0, -0.98), (0, -0.30), 0.07, 0.10)
        head.bone[nasal[0]] *= 1 - nasal[1]
        head.blend(nasal, AIR)
        head.cover(head.bone, head.make_capsule((0, -0.95), (0, -0.36), 0.008, 0.012))  # septum
        for side in (-1.0, 1.0):  # turbinates
            head.blend(head.make_capsule((side * 0.055, -0.78), (side * 0.06, -0.45), 0.025, 0.03), 40.0)
    head.blend(head.make_ellipse((0, -0.18), float(rng.uniform(0.05, 0.13)), 0.07, rough=0.2), AIR)  # pharynx
    _draw_spine(head)
    head.bone *= within
    head.inside = np.zeros(head.shape, dtype=np.float32)


def _draw_muscles(head: Head) -> None:
    """Chewing muscles, and the layers of the neck with fat between them."""
    rng = head.rng
    for side in (-1.0, 1.0):
        for x, y, rx, ry in (
            (0.68, -0.22, 0.09, 0.24),  # masseter
            (0.46, -0.24, 0.09, 0.18),  # pterygoids
            (0.12, 0.02, 0.10, 0.07),  # in front of the spine
            (0.60, 0.46, 0.14, 0.10),  # sternocleidomastoid
            (0.18, 0.74, 0.15, 0.10),
            (0.40, 0.66, 0.13, 0.09),
            (0.28, 0.88, 0.28, 0.05),
        ):
            place = (side * (x + float(rng.normal(0, 0.02))), y + float(rng.normal(0, 0.02)))
            head.blend(head.make_ellipse(place, rx, ry, side * float(rng.normal(0, 0.2)), 0.2), MUSCLE, 0.95)


def _draw_spine(head: Head) -> None:
    """Foramen magnum or first vertebra around the cord, with the dens in front of it."""
    rng = head.rng
    head.cover(head.bone, head.make_ellipse((0, 0.36), 0.30, 0.24, rough=0.1))
    canal = head.make_ellipse((0, 0.38), 0.20, 0.17)
    head.bone[canal[0]] *= 1 - canal[1]
    head.blend(canal, CSF + 5)
    head.blend(head.make_ellipse((0, 0.40), 0.10, 0.075), 34.0)
    if rng.random() < 0.7:
        head.cover(head.bone, head.make_ellipse((0, 0.25), 0.06, 0.06))


def _draw_teeth(head: Head, patient: Patient) -> None:
    """An arch of teeth, and in some patients a filling."""
    for angle in np.linspace(-1.1, 1.1, 12):
        place = (0.42 * float(np.sin(angle)), -0.42 - 0.48 * float(np.cos(angle)))
        head.cover(head.bone, head.make_ellipse(place, 0.05, 0.05, rough=0.2))
    head.blend(head.make_ellipse((0, -0.50), 0.26, 0.26, rough=0.1), MUSCLE)  # tongue
    if "metal" in patient.parts:
        rng = patient.open_stream("metal", 1)
        with head.borrow(rng):
            for _ in range(int(rng.integers(1, 4))):
                angle = float(rng.uniform(-1, 1))
                place = (0.42 * float(np.sin(angle)), -0.42 - 0.48 * float(np.cos(angle)))
                head.blend(head.make_ellipse(place, 0.05, 0.05), METAL)
                head.add_star(place, 0.05, float(rng.uniform(60, 200)))
