"""Some of many, evenly spread over their order: the same at every run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def spread_evenly(count: int, most: int) -> list[int]:
    """At most ``most`` indices below ``count``, in order, first and last among them where there are two."""
    return [int(index) for index in np.linspace(0, count - 1, min(count, most)).round()]


def take_evenly(pixels: NDArray[Any], most: int) -> NDArray[Any]:
    """At most so many of the images [N, ...]; all of them are not copied."""
    return pixels if len(pixels) <= most else pixels[spread_evenly(len(pixels), most)]
