"""From a drawn head to the CT values of its slice, as a scanner stores them: no window and nothing of an export.

Air, bone and soft tissue have the values that a scanner finds; metal has 2000 HU, far below a real clip, and its star.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.phantom.head import AIR, Head
from training.phantom.patient import Patient
from training.phantom.render import RIM_NOISE, filter_image, make_table, measure_noise, scan_head, take_grain

Values = NDArray[np.int16]

PICTURE_PARTS = ("motion", "wide_window", "resampling", "jpeg", "gamma")
"""Parts of the recipe that happen to a picture after its window, and so are in no CT values."""

LEAST, MOST = -1024, 3071
"""What 12 bits hold, HU."""

_TABLE_HU = 80 / 255  # HU of a grey level of the head rest: it was drawn for a window of that width from 0 up


def render_ct(head: Head, patient: Patient, rng: np.random.Generator, size: int) -> Values:
    """The CT values of the slice, int16 (size, size), HU from ``LEAST`` to ``MOST``; air around the head."""
    hu = filter_image(head.hu, patient.look.sharpness)
    scan_head(head, hu, patient, rng, size)
    values = take_grain(rng, patient.look.grain, (size, size)) * np.float32(
        RIM_NOISE * measure_noise(head.traits.level, patient, size)
    )
    values += np.float32(AIR)
    rows, cols = head.shape
    values[head.top : head.top + rows, head.left : head.left + cols] = hu
    if "table" in patient.parts:
        first, share, bright = make_table(patient, size)
        density = np.float32(bright * _TABLE_HU - AIR)
        np.maximum(values[first:], np.float32(AIR) + share * density, out=values[first:])
    stored: Values = np.clip(np.rint(values), LEAST, MOST).astype(np.int16)
    return stored
