"""The lesions of a synthetic head, painted into its Hounsfield units; not a simulation of their physics."""

from __future__ import annotations

import numpy as np

from training.phantom.head import Head, measure_distance
from training.phantom.lesions import Plan
from training.phantom.texture import Field, make_noise, make_profile


def paint_lesion(head: Head, plan: Plan) -> Field:
    """Paint the lesion into the head's HU; the answer is its soft mask on the head's grid."""
    painter = {
        "epidural": _paint_epidural,
        "subdural": _paint_subdural,
        "subarachnoid": _paint_subarachnoid,
        "intraparenchymal": _paint_bleed,
        "intraventricular": _paint_intraventricular,
        "infarct": _paint_infarct,
    }[plan.kind]
    mask = painter(head, plan)
    if plan.kind == "intraparenchymal" and head.rng.random() < 0.25:
        mask = np.maximum(mask, _paint_subarachnoid(head, plan, 0.6 * plan.radius + 0.1))
    if plan.kind in ("intraparenchymal", "subarachnoid") and head.rng.random() < 0.2:
        mask = np.maximum(mask, _paint_intraventricular(head, plan))
    return mask


def _mottle(head: Head, density: float, spread: float = 4.0) -> Field:
    """Blood is not even: clots, serum and fresh bleeding differ by several HU."""
    return np.float32(density) + np.float32(spread) * head.take_noise()


def _lay(head: Head, mask: Field, value: Field | float) -> Field:
    mask = (mask * head.inside).astype(np.float32)
    head.hu += mask * (value - head.hu)
    return mask


def _spread_on_skull(head: Head, plan: Plan, sharpness: float) -> Field:
    """1 at the collection's centre on the skull, falling to 0 and below at its ends, as a table over the angle."""
    n = len(head.inner_table)
    angle = np.linspace(-np.pi, np.pi, n, endpoint=False)
    centre = plan.angle if plan.side > 0 else np.pi - plan.angle
    away = np.abs((angle - centre + np.pi) % (2 * np.pi) - np.pi)
    return (1.0 - (away / plan.width) ** sharpness).astype(np.float32)


def _paint_epidural(head: Head, plan: Plan) -> Field:
    profile = _spread_on_skull(head, plan, 2.0) * (1 + make_profile(head.rng, 0.08, range(2, 12)))
    thick = (np.float32(plan.radius) * profile)[head.angle_index]
    mask = head.soften(thick - head.depth) * (thick > 0)
    return _lay(head, mask, _mottle(head, plan.density, float(head.rng.uniform(1, 7))))


def _paint_subdural(head: Head, plan: Plan) -> Field:
    rng = head.rng
    if plan.place == "falx":
        y0 = float(rng.uniform(-0.8, 0.2))
        wave = np.float32(plan.radius) * (1 + np.float32(0.3) * head.take_noise())
        off = head.bx * np.float32(plan.side)
        band = head.soften(wave - off) * head.soften(off + np.float32(0.008))
        taper = np.clip((np.float32(rng.uniform(0.25, 0.6)) - np.abs(head.by - np.float32(y0 + 0.3))) * 6, 0, 1)
        return _lay(head, band * taper, _mottle(head, plan.density))
    if plan.place == "tentorium":
        start, end = (plan.side * 0.08, 0.32), (plan.side * 0.5, 0.68)
        window, part = head.make_capsule(start, end, 0.6 * plan.radius, plan.radius)
        mask = np.zeros(head.shape, dtype=np.float32)
        mask[window] = part
        if rng.random() < 0.5:  # on the slope of the tent it spreads over several millimetres
            bend = (plan.side * float(rng.uniform(0.45, 0.65)), float(rng.uniform(0.3, 0.6)))
            window, part = head.make_capsule(end, bend, plan.radius, 0.6 * plan.radius, 0.06)
            np.maximum(mask[window], part, out=mask[window])
        return _lay(head, mask, _mottle(head, plan.density))
    profile = np.clip(_spread_on_skull(head, plan, 4.0) * 1.3, 0, 1) * (1 + make_profile(rng, 0.35, range(2, 10)))
    thick = (np.float32(plan.radius) * np.clip(profile, 0, 2).astype(np.float32))[head.angle_index]
    own_side = head.soften(head.bx * np.float32(plan.side) - np.float32(0.005))
    mask = head.soften(thick - head.depth) * (thick > 0.006) * own_side
    value = _mottle(head, plan.density, float(rng.uniform(1, 5)))
    if rng.random() < 0.2:  # fresh blood in an older collection, or serum in a fresh one
        value = value + np.float32(rng.choice([-18.0, 14.0])) * np.clip(head.take_noise(broad=True), 0, 1)
    if plan.density < 52 and rng.random() < 0.6:  # old and new blood settle: brighter at the back
        value = value + np.float32(rng.uniform(8, 26)) * np.clip(
            (head.y - np.float32(rng.uniform(-0.2, 0.3))) * 5, 0, 1
        )
    return _lay(head, mask, value)


def _paint_subarachnoid(head: Head, plan: Plan, radius: float | None = None) -> Field:
    rng = head.rng
    if plan.place == "diffuse" and radius is None:
        weight = np.clip(np.float32(0.7) + np.float32(0.6) * head.take_noise(broad=True), 0, 1)
    else:
        r = np.float32(radius or plan.radius)
        dx, dy = head.x - np.float32(plan.centre[0]), head.y - np.float32(plan.centre[1])
        weight = np.clip(np.float32(1.4) * np.exp(-(dx * dx + dy * dy) / (r * r)) - np.float32(0.1), 0, 1)
    # Blood fills what fluid filled, and swells it a little: that is why thin sulci become visible.
    space = np.clip(head.cistern * np.float32(rng.uniform(1.8, 3.2)), 0, 1)
    density = plan.density if plan.kind == "subarachnoid" else 0.85 * plan.density
    return _lay(head, space * weight, _mottle(head, density))


def _paint_bleed(head: Head, plan: Plan) -> Field:
    rng = head.rng
    aspect, turn = float(rng.uniform(0.6, 1.0)), float(rng.uniform(0, np.pi))
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    mask, rim = np.zeros(head.shape, dtype=np.float32), np.zeros(head.shape, dtype=np.float32)
    parts = [(plan.centre, plan.radius)]
    contusion = plan.place == "contusion"
    if rng.random() < (0.7 if contusion else 0.25):  # contusions and satellites come in groups
        for _ in range(int(rng.integers(1, 5))):
            step = rng.normal(0, 1.5 * plan.radius, 2)
            parts.append(
                ((plan.centre[0] + step[0], plan.centre[1] + step[1]), plan.radius * float(rng.uniform(0.3, 0.7)))
            )
    oedema = float(rng.uniform(0.0, 0.6)) * plan.radius + 0.01
    rough, blur = float(rng.uniform(0.06, 0.24)) + 0.15 * contusion, float(rng.uniform(0.01, 0.05))
    for (cx, cy), radius in parts:
        window = head.find_window(((cx, cy),), 1.9 * radius + oedema)
        dx, dy = head.x[window] - np.float32(cx), head.y[window] - np.float32(cy)
        if not dx.size:
            continue
        r = measure_distance(dx * c + dy * s, (dy * c - dx * s) * np.float32(1 / aspect))
        near = (
            np.float32(radius)
            * (1 + np.float32(rough) * make_noise(rng, dx.shape, max(2.0, 0.6 * radius * head.scale)))
            - r
        )
        np.maximum(mask[window], head.soften(near, blur), out=mask[window])
        np.maximum(rim[window], np.clip((near + np.float32(oedema)) / np.float32(oedema), 0, 1), out=rim[window])
    free = 1 - np.maximum(head.ventricle, head.cistern)
    _lay(head, rim * free * np.float32(rng.uniform(0.4, 1.0)), float(rng.uniform(18, 26)))
    return _lay(head, mask * np.clip(free + 0.5, 0, 1), _mottle(head, plan.density, float(rng.uniform(1, 6))))


def _paint_intraventricular(head: Head, plan: Plan) -> Field:
    rng = head.rng
    if plan.place == "layer":
        level = float(rng.uniform(0.12, 0.40))  # blood sinks into the occipital horns of somebody who lies
        weight = head.soften(head.by - np.float32(level))
    elif plan.place == "cast":
        weight = np.clip(np.float32(0.9) + np.float32(0.5) * head.take_noise(broad=True), 0, 1)
        if rng.random() < 0.5:
            weight = weight * np.clip(np.float32(0.5) + head.bx * np.float32(plan.side * 10), 0, 1)
    else:
        dx, dy = head.x - np.float32(plan.centre[0]), head.y - np.float32(plan.centre[1])
        weight = head.soften(np.float32(plan.radius) - measure_distance(dx, dy))
    density = plan.density if plan.kind == "intraventricular" else 0.9 * plan.density
    return _lay(head, head.ventricle * weight, _mottle(head, density, 5.0))


def _paint_infarct(head: Head, plan: Plan) -> Field:
    """A territory loses its grey-white contrast and then its density; fluid and dura keep theirs."""
    rng = head.rng
    noise = head.take_noise()
    if plan.place == "patch":
        dx, dy = head.x - np.float32(plan.centre[0]), head.y - np.float32(plan.centre[1])
        signed = np.float32(plan.radius) * (1 + np.float32(0.25) * noise) - measure_distance(dx, dy)
    else:
        # The vessel's stem sits near the middle; the wedge opens to the cortex around its angle.
        ox, oy = np.float32(plan.side * 0.10), np.float32(0.25 * np.sin(plan.angle))
        away = np.arctan2(head.y - oy, (head.x - ox) * np.float32(plan.side)) - np.float32(plan.angle)
        signed = (np.float32(plan.width) - np.abs(away) + np.float32(0.10) * noise) * np.float32(0.4)
        signed = np.minimum(signed, measure_distance(head.x - ox, head.y - oy) - np.float32(rng.uniform(0.05, 0.35)))
    edge = np.float32(rng.uniform(8, 30))
    mask = np.clip(signed * edge + np.float32(0.5), 0, 1)
    brain = (head.hu > 18) & (head.hu < 46)
    mask = mask * brain * (1 - np.maximum(head.ventricle, 0.5 * head.cistern))
    flat = np.float32(rng.uniform(0.5, 0.95))
    target = head.hu * (1 - flat) + flat * np.float32(34.0) - np.float32(plan.density)
    return _lay(head, mask, np.minimum(target, head.hu))
