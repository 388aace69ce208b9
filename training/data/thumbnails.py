"""Images at 32 x 32 pixels: enough to tell whether two of them look alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Side of a small image, in pixels."""


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Averages images down to 32 x 32.

    Args:
        pixels: uint8 [N, H, W], 0 to 255; H and W are multiples of 32.

    Returns:
        float32 [N, 1024], 0 to 255.
    """
    count, height, width = pixels.shape
    if height % SIDE or width % SIDE:
        raise ValueError(f"height and width must be multiples of {SIDE}, not {height} and {width}")
    blocks = pixels.reshape(count, SIDE, height // SIDE, SIDE, width // SIDE)
    means: NDArray[np.float32] = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(count, SIDE * SIDE)
    return means
