"""Black and white pixels as the bits of one whole number: row after row, the first pixel the highest bit.

Counting and comparing the few thousand pixels of a grid takes Python 0.1 µs so. A call of NumPy takes ten times as
long, gives up the interpreter's lock each time, and waits to have it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def pack(pixels: NDArray[np.bool_]) -> int:
    """Returns the bits of pixels [height, width]."""
    data = np.packbits(pixels).tobytes()
    return int.from_bytes(data, "big") >> (8 * len(data) - pixels.size)


@dataclass(frozen=True)
class Layout:
    """Where the pixels of a size are among the bits. All fields but the size are bits themselves."""

    height: int
    width: int
    inside: int
    """All but the frame."""

    top: int
    left: int
    right: int
    """First row, first and last column."""

    bottom: int
    column_digits: tuple[int, ...]
    row_digits: tuple[int, ...]
    """The pixels in whose column's, or row's, number the binary digit 1, 2, 4 ... is set."""

    beyond: tuple[int, ...]
    """The pixels that have another one 1, 2, 4 ... columns before them in their row."""

    def find_middle(self, bits: int) -> tuple[float, float]:
        """Returns the column and the row in the middle of the bits that are set, of which there is at least one."""
        count = bits.bit_count()
        column, row = (
            sum((bits & those).bit_count() << digit for digit, those in enumerate(digits))
            for digits in (self.column_digits, self.row_digits)
        )
        return column / count, row / count

    def count_rises(self, bits: int) -> tuple[int, int]:
        """Returns how often a set bit follows one that is not, from left to right in rows and downwards in columns."""
        across = bits & ~(bits >> 1) & ~self.left
        down = bits & ~(bits >> self.width) & ~self.top
        return across.bit_count(), down.bit_count()

    def count_lines(self, bits: int) -> tuple[int, int]:
        """Returns how many rows and how many columns have set bits."""
        to_right = downwards = bits
        for digit, those in enumerate(self.beyond):
            to_right |= to_right >> (1 << digit) & those
        for digit in range(len(self.row_digits)):
            downwards |= downwards >> (self.width << digit)
        return (to_right & self.right).bit_count(), (downwards & self.bottom).bit_count()


@lru_cache(maxsize=64)
def find_layout(height: int, width: int, frame: int) -> Layout:
    """Returns the layout of a size, at least ``2 * frame + 1`` a side, with a frame of so many pixels."""
    rows, columns = np.indices((height, width))
    is_inside = (rows >= frame) & (rows < height - frame) & (columns >= frame) & (columns < width - frame)
    column_digits, row_digits = (range((side - 1).bit_length()) for side in (width, height))
    return Layout(
        height,
        width,
        inside=pack(is_inside),
        top=pack(rows == 0),
        left=pack(columns == 0),
        right=pack(columns == width - 1),
        bottom=pack(rows == height - 1),
        column_digits=tuple(pack(columns >> digit & 1 > 0) for digit in column_digits),
        row_digits=tuple(pack(rows >> digit & 1 > 0) for digit in row_digits),
        beyond=tuple(pack(columns >= 1 << digit) for digit in column_digits),
    )
