"""Pixels as the bits of a whole number say of an image what its array says."""

from __future__ import annotations

import numpy as np
import pytest

from server.images.bits import find_layout, pack

SIZES = [(64, 64), (5, 5), (7, 64), (64, 9), (33, 50)]


def draw_pixels(height: int, width: int, share: float) -> np.ndarray:
    pixels = np.random.default_rng([height, width]).random((height, width)) < share
    pixels[height // 2, width // 3] = True
    return pixels


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_bits_are_counted_as_pixels_are(size: tuple[int, int], share: float) -> None:
    """The middle, the edges and the lines, of sizes that are no powers of two as well."""
    pixels = draw_pixels(*size, share)
    bits, layout = pack(pixels), find_layout(*size, 2)
    rows, columns = np.nonzero(pixels)

    assert bits.bit_count() == len(rows)
    assert layout.find_middle(bits) == (columns.sum() / len(columns), rows.sum() / len(rows))
    assert layout.count_lines(bits) == (len(set(rows)), len(set(columns)))
    assert layout.count_rises(bits) == (
        np.count_nonzero(pixels[:, 1:] > pixels[:, :-1]),
        np.count_nonzero(pixels[1:] > pixels[:-1]),
    )


@pytest.mark.parametrize("size", SIZES)
def test_parts_of_an_image_are_known(size: tuple[int, int]) -> None:
    """What lies inside its frame, and its edges."""
    pixels = draw_pixels(*size, 0.5)
    bits, layout = pack(pixels), find_layout(*size, 2)

    for part, those in (
        (layout.inside, pixels[2:-2, 2:-2]),
        (layout.top, pixels[0]),
        (layout.bottom, pixels[-1]),
        (layout.left, pixels[:, 0]),
        (layout.right, pixels[:, -1]),
    ):
        assert (bits & part).bit_count() == np.count_nonzero(those)
