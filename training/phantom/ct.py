"""From a drawn head to the CT values of its slice, as a scanner stores them: no window and nothing of an export.

The generator draws densities in HU between fat and blood. Air and bone it draws just outside every brain window
(``head.AIR``, ``head.BONE``), because its pictures are windowed without the fine pixels that a window would be applied
to; here they get what a scanner finds:

- from -100 HU, denser than fat, down to the generator's air at -150: linearly down to -1000,
- where bone has a share of a pixel, that share of 1000 HU instead of 170,
- all else, calcification and metal included, as it is drawn. Metal stays at 400 HU, far below a real clip; its star is
  there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.phantom.head import AIR, BONE, Head
from training.phantom.patient import Patient
from training.phantom.render import RIM_NOISE, filter_image, make_table, measure_noise, scan_head, take_grain
from training.phantom.texture import Field

Values = NDArray[np.int16]

PICTURE_PARTS = ("motion", "wide_window", "resampling", "jpeg", "gamma")
"""Parts of the recipe that happen to a picture after its window, and so are in no CT values."""

CT_AIR, CT_BONE = -1000.0, 1000.0
LEAST, MOST = -1024, 3071
"""What 12 bits hold, HU."""

_THIN = -100.0  # HU; fat is denser, and what is thinner has air in it
_TABLE_HU = 80 / 255  # HU of a grey level of the head rest: it was drawn for a window of that width from 0 up


def render_ct(head: Head, patient: Patient, rng: np.random.Generator, size: int) -> Values:
    """The CT values of the slice, int16 (size, size), HU from ``LEAST`` to ``MOST``; air around the head."""
    hu = restore_densities(head, filter_image(head.hu, patient.look.sharpness))
    scan_head(head, hu, patient, rng, size)
    values = take_grain(rng, patient.look.grain, (size, size)) * np.float32(
        RIM_NOISE * measure_noise(head.traits.level, patient, size)
    )
    values += np.float32(CT_AIR)
    rows, cols = head.shape
    values[head.top : head.top + rows, head.left : head.left + cols] = hu
    if "table" in patient.parts:
        first, share, bright = make_table(patient, size)
        density = np.float32(bright * _TABLE_HU - CT_AIR)
        np.maximum(values[first:], np.float32(CT_AIR) + share * density, out=values[first:])
    stored: Values = np.clip(np.rint(values), LEAST, MOST).astype(np.int16)
    return stored


def restore_densities(head: Head, hu: Field) -> Field:
    """Gives air and bone their CT values, see above.

    Args:
        head: the head, for its bone.
        hu: its densities on its grid, as they were drawn or filtered.
    """
    # Air cells are laid over bone without taking its share: no more of a pixel is bone than its density allows.
    bone = np.minimum(head.bone, np.clip(hu * np.float32(1 / BONE), 0, 1))
    air = np.clip((np.float32(_THIN) - hu) * np.float32(1 / (_THIN - AIR)), 0, 1)
    restored: Field = hu + bone * np.float32(CT_BONE - BONE) + air * np.float32(CT_AIR - AIR)
    return restored
