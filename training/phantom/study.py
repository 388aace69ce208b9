"""A study of a synthetic head: slices of the whole head in their order, and which of them a lesion reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.phantom.head import LEVEL_MM
from training.phantom.lesions import LEVELS, draw_level
from training.phantom.patient import Patient

_LOW, _HIGH = 0.20, 1.0  # levels between which a study lies
_EXTENT_MM = {
    "epidural": (30, 80),
    "subdural": (40, 110),
    "subarachnoid": (30, 80),
    "intraparenchymal": (15, 60),
    "intraventricular": (20, 55),
    "infarct": (25, 80),
}
"""How far lesions of each kind reach from foot to head."""


@dataclass(frozen=True)
class Study:
    """Levels and lesions of a study's slices, from the skull base up."""

    levels: tuple[float, ...]
    kinds: tuple[str | None, ...]
    """What each shows; None where the lesion does not reach."""


def plan_study(patient: Patient, kind: str | None, slices: int) -> Study:
    """Lays slices at equal distances through a head, and through them the lesion, if there is one.

    The lesion has the same place and size on all slices that it reaches: it does not taper.
    """
    rng = patient.open_stream("study")
    step = (_HIGH - _LOW) / slices
    levels = _LOW + (np.arange(slices) + float(rng.uniform(0.25, 0.75))) * step
    kinds: list[str | None] = [None] * slices
    if kind:
        centre = draw_level(rng, kind)
        reach = float(rng.uniform(*_EXTENT_MM[kind])) / LEVEL_MM / 2
        low, _, high = LEVELS[kind]
        inside = (np.abs(levels - centre) <= reach) & (levels >= low) & (levels <= high)
        inside[np.argmin(np.abs(levels - centre))] = True
        kinds = [kind if reached else None for reached in inside]
    return Study(tuple(map(float, levels)), tuple(kinds))
