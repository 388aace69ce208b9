"""How the pixels of a DICOM file are stored and what their numbers mean, checked before one of them is touched."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from server.images.dicom import refusals
from server.images.dicom.elements import Elements
from server.images.dicom.header import FrameShape
from server.images.dicom.window import Window, apply_windows

SAMPLES, PHOTOMETRIC = 0x00280002, 0x00280004
ROWS, COLUMNS = 0x00280010, 0x00280011
BITS_ALLOCATED, BITS_STORED, HIGH_BIT, SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
PADDING, PADDING_LIMIT = 0x00280120, 0x00280121
INTERCEPT, SLOPE, RESCALE_TYPE = 0x00281052, 0x00281053, 0x00281054

RESCALE_GROUP = 0x00289145
"""Functional group in which an enhanced file has the last three."""

PIXEL_TAGS = frozenset(
    (
        *(SAMPLES, PHOTOMETRIC, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, HIGH_BIT, SIGNED),
        *(PADDING, PADDING_LIMIT, INTERCEPT, SLOPE, RESCALE_TYPE),
    )
)
"""The elements of the data set that are looked at."""

LEAST_BITS, WORD_BITS = 12, 16
"""Bits stored, and allocated, of CT (PS3.3, C.8.2.1.1)."""

HOUNSFIELD = ("", "HU", "HU_MOD", "US")
"""Rescale types of CT values: not stated, so or not quite (monoenergetic), and unspecified."""

GREY = {"MONOCHROME1": True, "MONOCHROME2": False}
"""Photometric interpretations, and whether the smallest value is white."""


@dataclass(frozen=True)
class PixelFormat:
    """What a stored number means."""

    bits: int
    """Bits stored, 12 to 16; what the others hold is of no account."""

    is_signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    """Smallest and largest stored value that stands for no value at all: what lies outside the scanner's field."""

    is_inverted: bool
    """The smallest value is white."""


def read_shape(elements: Elements) -> FrameShape:
    """Returns how a frame is stored.

    Raises:
        ImageError: reasons DICOM_COLOUR, DICOM_BIT_DEPTH, DICOM_HIGH_BIT, DICOM_DAMAGED.
    """
    samples, photometric = elements.integer(SAMPLES), elements.text(PHOTOMETRIC)
    if not samples or not photometric:
        raise refusals.damaged()
    if samples != 1 or photometric not in GREY:
        raise refusals.coloured()
    allocated, bits, sign = (elements.integer(tag) for tag in (BITS_ALLOCATED, BITS_STORED, SIGNED))
    rows, columns = elements.integer(ROWS), elements.integer(COLUMNS)
    if allocated != WORD_BITS or bits is None or not LEAST_BITS <= bits <= WORD_BITS:
        raise refusals.other_bit_depth()
    if elements.integer(HIGH_BIT) != bits - 1:
        raise refusals.high_bit()
    if sign not in (0, 1) or not rows or not columns:
        raise refusals.damaged()
    return FrameShape(rows, columns, bits, bool(sign))


def read_pixel_format(elements: Elements, rescale: Elements, shape: FrameShape) -> PixelFormat:
    """Returns what the numbers of a frame mean.

    Args:
        elements: the data set.
        rescale: where the frame's rescale slope and intercept stand.
        shape: how the frame is stored.

    Raises:
        ImageError: reasons DICOM_RESCALE_MISSING, DICOM_NOT_HOUNSFIELD.
    """
    slope, intercept = rescale.number(SLOPE), rescale.number(INTERCEPT)
    if not slope or intercept is None:
        raise refusals.no_rescale()
    if rescale.text(RESCALE_TYPE) not in HOUNSFIELD:
        raise refusals.not_hounsfield()
    padding = read_padding(elements, shape.is_signed)
    is_inverted = GREY[elements.text(PHOTOMETRIC)]
    return PixelFormat(shape.bits_stored, shape.is_signed, slope, intercept, padding, is_inverted)


def read_padding(elements: Elements, is_signed: bool) -> tuple[int, int] | None:
    """Returns the range of stored values that are padding; its ends may stand in the file in either order."""
    ends = [end for end in (elements.integer(PADDING), elements.integer(PADDING_LIMIT)) if end is not None]
    if PADDING not in elements or not ends:
        return None
    signed = [end - (1 << WORD_BITS) if is_signed and end >> WORD_BITS - 1 else end for end in ends]
    return min(signed), max(signed)


def find_values(pixel_format: PixelFormat) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns what each word of 16 bits stands for.

    Returns:
        float32 [65536] in Hounsfield units, and bool [65536], whether it is padding and so no value.
    """
    words = np.arange(1 << WORD_BITS, dtype=np.uint16)
    unused = WORD_BITS - pixel_format.bits
    # The sign is in the highest bit stored: shifted up and down again it fills the unused ones, whatever they held.
    shifted = words << unused
    stored = (shifted.view(np.int16) if pixel_format.is_signed else shifted) >> unused
    is_padding = np.zeros(words.shape, np.bool_)
    if pixel_format.padding is not None:
        low, high = pixel_format.padding
        # Also as a word of 16 bits: padding need not fit into the bits stored.
        for numbers in (stored, words.view(np.int16) if pixel_format.is_signed else words):
            is_padding |= (low <= numbers) & (numbers <= high)
    return (stored * pixel_format.slope + pixel_format.intercept).astype(np.float32), is_padding


@lru_cache(maxsize=16)
def make_levels(pixel_format: PixelFormat, windows: tuple[Window, ...]) -> NDArray[np.uint8]:
    """Returns the grey levels of each word of 16 bits: files of one scanner share them.

    Returns:
        uint8 [65536] for one window, otherwise uint8 [65536, len(windows)].
    """
    with np.errstate(over="ignore"):
        values, is_padding = find_values(pixel_format)
    limit = np.finfo(np.float32).max / 1e6
    levels: NDArray[np.uint8] = apply_windows(np.clip(values, -limit, limit)[np.newaxis], windows)[0]
    if pixel_format.is_inverted:
        levels = 255 - levels
    levels[is_padding] = 0
    if len(windows) == 1:
        levels = np.ascontiguousarray(levels[:, 0])
    levels.flags.writeable = False
    return levels
