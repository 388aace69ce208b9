"""Bleeds and infarcts, planned before the anatomy is drawn and painted after it (``training.phantom.painting``).

The plan comes first because a lesion pushes the brain aside. Blood is 50 to 80 HU while acute, falls by about 1.5 HU a
day to brain's own density (subacute), and to 15 to 25 HU when chronic; oedema and infarcts are 15 to 30 HU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.phantom.head import BASE_LEVEL, Point, Push, measure_size

HAEMORRHAGES = ("epidural", "subdural", "subarachnoid", "intraparenchymal", "intraventricular")
KINDS = (*HAEMORRHAGES, "infarct")

# Where each kind can be seen; the mode of a triangular distribution sits in the middle of the three.
LEVELS = {
    "epidural": (0.30, 0.50, 0.90),
    "subdural": (0.31, 0.66, 0.96),
    "subarachnoid": (0.30, 0.48, 0.94),
    "intraparenchymal": (0.20, 0.50, 0.94),
    "intraventricular": (0.30, 0.54, 0.68),
    "infarct": (0.22, 0.58, 0.90),
}


@dataclass(frozen=True)
class Plan:
    """One lesion: its kind, where it sits (head units), how large and how dense it is."""

    kind: str
    side: float
    centre: Point
    radius: float
    angle: float  # where on the skull an extra-axial collection is centred
    width: float  # its half-width in radians
    density: float  # HU of blood, or the fall in HU of an infarct
    push: Push
    place: str = ""


def draw_level(rng: np.random.Generator, kind: str) -> float:
    """Draw an anatomical level at which this kind of lesion can be seen."""
    low, mode, high = LEVELS[kind]
    # Half evenly, or the base and the vertex, where models are weakest, would be rare.
    return float(rng.uniform(low, high) if rng.random() < 0.5 else rng.triangular(low, mode, high))


def plan_lesion(rng: np.random.Generator, kind: str, level: float) -> Plan:
    """Decide place, size and density of a lesion at a level."""
    side = -1.0 if rng.random() < 0.5 else 1.0
    planner = {
        "epidural": _plan_epidural,
        "subdural": _plan_subdural,
        "subarachnoid": _plan_subarachnoid,
        "intraparenchymal": _plan_bleed,
        "intraventricular": _plan_intraventricular,
        "infarct": _plan_infarct,
    }[kind]
    return planner(rng, level, side, measure_size(level))


def _draw_density(rng: np.random.Generator) -> float:
    """HU of acute blood; a quarter is faint, as in the anaemic, or where a thin bleed fills half of the slice."""
    return float(rng.uniform(44, 58) if rng.random() < 0.25 else rng.triangular(50, 64, 80))


def _plan_epidural(rng: np.random.Generator, level: float, side: float, bulk: float) -> Plan:
    angle = float(rng.uniform(-1.2, 1.2))
    if level < 0.38 and rng.random() < 0.35:
        angle = float(rng.uniform(0.9, 1.4))  # beside the cerebellum
    elif level < 0.6 and rng.random() < 0.6:
        angle = float(rng.normal(-0.1, 0.25))  # under the temporal bone, where the middle meningeal artery tears
    width = float(rng.uniform(0.12, 0.6))
    radius = float(width * rng.uniform(0.16, 0.46)) * bulk
    shift = float(side * rng.uniform(0.1, 0.5) * radius)
    push = Push(_place_at(side, angle, 0.65 * bulk), radius, 0.25, shift)
    return Plan("epidural", side, (0.0, 0.0), radius, angle, width, _draw_density(rng), push)


def _plan_subdural(rng: np.random.Generator, level: float, side: float, bulk: float) -> Plan:
    place = str(rng.choice(["convexity", "falx", "tentorium"], p=[0.7, 0.18, 0.12]))
    if place == "tentorium" and not 0.37 <= level < 0.46:
        place = "convexity"
    angle, width = float(rng.uniform(-1.2, 1.2)), float(rng.uniform(0.35, 1.5))
    radius = float(np.clip(rng.gamma(2.0, 0.03), 0.018, 0.20)) * bulk
    if place != "convexity":
        radius = min(radius, float(rng.uniform(0.014, 0.05)))
    density = float(rng.choice([_draw_density(rng), rng.uniform(38, 50), rng.uniform(16, 26)], p=[0.74, 0.17, 0.09]))
    push = Push(shift=float(side * rng.uniform(0.2, 0.9) * radius) if place == "convexity" else 0.0)
    return Plan("subdural", side, (0.0, 0.0), radius, angle, width, density, push, place)


def _plan_subarachnoid(rng: np.random.Generator, level: float, side: float, bulk: float) -> Plan:
    place = "diffuse" if rng.random() < (0.55 if level < 0.5 else 0.25) else "local"
    centre = _place_at(side, float(rng.uniform(-1.3, 1.3)), float(rng.uniform(0.4, 0.85)) * bulk)
    radius = float(rng.uniform(0.14, 0.45))
    density = float(rng.triangular(44, 56, 72))
    return Plan("subarachnoid", side, centre, radius, 0.0, 0.0, density, Push(), place)


def _plan_bleed(rng: np.random.Generator, level: float, side: float, bulk: float) -> Plan:
    if level > BASE_LEVEL and rng.random() < 0.2:  # a contusion, beside the bone at the poles
        radius = float(rng.uniform(0.03, 0.1))
        angle = float(rng.choice([rng.normal(-1.25, 0.2), rng.normal(-0.25, 0.3), rng.uniform(-1.4, 1.4)]))
        centre = _place_at(side, angle, bulk - 0.1 - 0.6 * radius)
        push = Push(centre, radius, float(rng.uniform(0, 0.2)))
        return Plan("intraparenchymal", side, centre, radius, angle, 0.0, _draw_density(rng), push, "contusion")
    small = rng.random() < 0.35
    radius = float(rng.uniform(0.032, 0.085) if small else np.clip(rng.lognormal(-2.0, 0.5), 0.05, 0.36))
    radius *= min(1.0, bulk + 0.15)
    if level < 0.38:
        radius = min(radius, 0.2)
    centre = _place_bleed(rng, level, side, bulk, radius)
    shift = float(np.sign(centre[0]) * rng.uniform(0, 0.35) * radius)
    push = Push(centre, radius, float(rng.uniform(0.1, 0.55)), shift)
    return Plan("intraparenchymal", side, centre, radius, 0.0, 0.0, _draw_density(rng), push)


def _plan_intraventricular(rng: np.random.Generator, level: float, side: float, bulk: float) -> Plan:
    place = str(rng.choice(["layer", "cast", "clot"], p=[0.5, 0.28, 0.22]))
    if level < 0.46:
        place = "cast"  # fourth ventricle and temporal horns are small
    centre = (side * 0.12, float(rng.uniform(-0.3, 0.25)))
    radius = float(rng.uniform(0.1, 0.3))
    return Plan("intraventricular", side, centre, radius, 0.0, 0.0, _draw_density(rng), Push(), place)


def _plan_infarct(rng: np.random.Generator, level: float, side: float, bulk: float) -> Plan:
    place = str(rng.choice(["wedge", "patch"], p=[0.7, 0.3])) if level > 0.3 else "patch"
    width, radius = float(rng.uniform(0.3, 0.95)), float(rng.uniform(0.05, 0.2))
    centre = _place_bleed(rng, level, side, bulk, radius)
    density = float(rng.triangular(4, 8, 16))
    push = Push(shift=side * float(rng.uniform(0, 0.06)) if place == "wedge" else 0.0)
    return Plan("infarct", side, centre, radius, float(rng.uniform(-1.2, 1.2)), width, density, push, place)


def _place_at(side: float, angle: float, radius: float) -> Point:
    return (float(side * radius * np.cos(angle) * 0.8), float(radius * np.sin(angle)))


def _place_bleed(rng: np.random.Generator, level: float, side: float, bulk: float, radius: float) -> Point:
    """Deep nuclei, lobes, contusions at the poles, brain stem or cerebellum, by level."""
    if level < 0.30:
        return (side * float(rng.uniform(0.0, 0.3)), float(rng.uniform(0.3, 0.6)))
    if level < 0.40 and rng.random() < 0.55:
        return (
            side * float(rng.uniform(0.0, 0.3)),
            float(rng.choice([rng.uniform(0.03, 0.15), rng.uniform(0.35, 0.65)], p=[0.25, 0.75])),
        )
    if 0.44 < level < 0.64 and rng.random() < 0.45:
        return (side * float(rng.uniform(0.12, 0.34)), float(rng.uniform(-0.18, 0.16)))
    room = max(0.15, bulk - 0.15 - 0.8 * radius)
    return _place_at(side, float(rng.uniform(-1.4, 1.4)), room * float(rng.uniform(0.45, 1.0)))
