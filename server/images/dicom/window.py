"""Windows: which CT values become black and which white. They belong to a model, which has learned from slices in one;
what the file suggests for people (Window Center, Window Width) is of another purpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_HU = 65_536
"""More than any scanner stores, either way from water."""


@dataclass(frozen=True)
class Window:
    """Grey levels of CT values: black up to ``level - width / 2``, white from ``level + width / 2`` on."""

    level: float
    """Window level (centre), in Hounsfield units."""

    width: float
    """Window width, in Hounsfield units, above 0."""


BRAIN = Window(40.0, 80.0)
"""The window in which brains are read."""


def parse_window(text: str) -> Window:
    """Reads ``LEVEL,WIDTH`` in Hounsfield units, such as ``40,80``.

    Raises:
        ValueError: it is no such text, or out of the range of CT values.
    """
    try:
        level, width = map(float, text.split(","))
    except ValueError:
        level, width = math.nan, math.nan
    if not (abs(level) <= MOST_HU and 0 < width <= MOST_HU):
        raise ValueError(f"{text!r} is not LEVEL,WIDTH in Hounsfield units, such as 40,80 for brains")
    return Window(level, width)


def read_windows(texts: Sequence[str]) -> tuple[Window, ...]:
    """Reads what ``--window`` was given: nothing, one window, or one for each of three channels.

    Raises:
        ValueError: naming the flag.
    """
    if len(texts) not in (0, 1, 3):
        raise ValueError(f"--window must be one or three, not {len(texts)}")
    try:
        return tuple(map(parse_window, texts))
    except ValueError as error:
        raise ValueError(f"--window {error}") from None


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
