"""Windows: which CT values become black and which white. They belong to a model, which has learned from slices in one;
what the file suggests for people (Window Center, Window Width) is of another purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """Grey levels of CT values: black up to ``level - width / 2``, white from ``level + width / 2`` on."""

    level: float
    """Window level (centre), in Hounsfield units."""

    width: float
    """Window width, in Hounsfield units, above 0."""


BRAIN = Window(40.0, 80.0)
"""The window in which brains are read."""


def apply_windows(values: NDArray[np.float32], windows: Sequence[Window]) -> NDArray[np.uint8]:
    """Makes grey levels of CT values, linearly between the ends of each window (PS3.3 C.11.2.1.3.2, LINEAR_EXACT).

    Args:
        values: float32 [height, width], in Hounsfield units, finite.
        windows: at least one.

    Returns:
        uint8 [height, width, len(windows)], 0 to 255, rounded to the nearest.
    """
    channels = [(values - (window.level - window.width / 2)) * (255 / window.width) for window in windows]
    levels: NDArray[np.uint8] = np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)
    return levels
