"""A DICOM file: what it says of its slices, and grey levels of its CT values in a model's windows.

As with PNG and JPEG the header is read and bounded before a pixel is touched. Uncompressed pixels are looked up where
they stand, without a copy; compressed ones are unpacked elsewhere (``server.images.dicom.codecs``). The window that a
file suggests for people is never looked at: what a model sees depends on nothing that somebody has set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.images.dicom import refusals, syntax
from server.images.dicom.budget import ReadBudget
from server.images.dicom.codecs.frames import decode_frame
from server.images.dicom.elements import Elements, read_elements, read_items
from server.images.dicom.header import FrameShape, SliceHeader
from server.images.dicom.item_list import UNDEFINED_LENGTH, list_items
from server.images.dicom.pixel_format import (
    COLUMNS,
    PIXEL_TAGS,
    RESCALE_GROUP,
    ROWS,
    PixelFormat,
    make_levels,
    read_pixel_format,
    read_shape,
)
from server.images.dicom.signature import PREAMBLE, PREFIX, is_big_endian, is_implicit
from server.images.dicom.slice_reader import MODALITY, PER_FRAME, SLICE_TAGS, FunctionalGroups, read_slice_header
from server.images.dicom.window import Window
from server.images.image_file import (
    DecodedImage,
    ImageLimits,
    ImageWarning,
    check_dimensions,
    choose_frame,
)

META_GROUP, TRANSFER_SYNTAX = 0x0002, 0x00020010
FRAMES, LOSSY_COMPRESSION = 0x00280008, 0x00282110
TAGS = SLICE_TAGS | PIXEL_TAGS | {FRAMES, LOSSY_COMPRESSION}
"""All that is ever looked at: names, dates and places are not."""

PIXELS = 0x7FE00010
PIXEL_ELEMENTS = frozenset((0x7FE00008, 0x7FE00009, PIXELS))
"""Pixels as floating-point numbers of two widths, and as integers: the data set is read up to the first of these."""

PIXELS_TAG, PER_FRAME_TAG = b"\xe0\x7f\x10\x00", b"\x00\x52\x30\x92"
LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"SQ", b"UN")
"""How they are represented (VR), all odd numbers: no length, which is even, can be taken for one."""

MOST_FRAMES = 2**31
"""What a number of frames can be (IS)."""

WORD = np.dtype("<u2")


@dataclass(frozen=True)
class PixelElement:
    """Where the pixels of a file stand."""

    start: int
    """First byte of the value."""

    length: int
    """In bytes; ``UNDEFINED_LENGTH`` where they are encapsulated, as compressed ones are."""

    is_float: bool


@dataclass(frozen=True)
class DicomFile:
    """A file whose header has been read and found within the limits. No pixel has been looked at."""

    data: bytes
    transfer_syntax: str
    """Empty where a file without a head does not say it."""

    elements: Elements
    pixels: PixelElement
    rows: int
    columns: int
    frames: int
    is_lossy: bool
    groups: FunctionalGroups


def read_header(data: bytes, limits: ImageLimits) -> tuple[SliceHeader, ...]:
    """Reads what a DICOM file says of its slices, whatever made them: one for each frame, in their order.

    Raises:
        ImageError: as ``read_dicom``.
    """
    file = read_dicom(data, limits)
    return tuple(
        read_slice_header(
            *(file.elements, file.groups, frame),
            is_only=file.frames == 1,
            size=(file.rows, file.columns),
            is_lossy=file.is_lossy,
        )
        for frame in range(file.frames)
    )


def decode_dicom(data: bytes, windows: Sequence[Window], limits: ImageLimits, frame: int = 0) -> DecodedImage:
    """Makes grey levels of the CT values of one frame of a DICOM file.

    Args:
        data: the whole file.
        windows: the model's: one for a grey image, three for one with three channels.
        limits: what the file may be.
        frame: which frame, from 1; 0: the only one.

    Returns:
        An image of the file's size, mode ``L`` or ``RGB``.

    Raises:
        ImageError: as ``read_dicom``, ``choose_frame``, ``read_shape`` and ``read_pixel_format``, and the reasons
            DICOM_WINDOW_MISSING, DICOM_MODALITY, DICOM_PIXEL_LENGTH, DICOM_TRUNCATED, DICOM_JPEG_12_BIT,
            DICOM_NO_DECODER, DICOM_UNDECODABLE.
        UnavailableError, OverloadedError: see ``decode_frame``.
    """
    if not windows:
        raise refusals.no_window()
    file = read_dicom(data, limits)
    words, meaning = read_frame(file, frame)
    image = Image.fromarray(make_levels(meaning, tuple(windows)).take(words, axis=0))
    warnings = [ImageWarning("IMAGE_LOSSY", "The image was compressed with loss of detail.")] if file.is_lossy else []
    return DecodedImage(image, tuple(warnings))


def read_dicom(data: bytes, limits: ImageLimits) -> DicomFile:
    """Reads a DICOM file up to its pixels.

    Raises:
        ImageError: reasons DICOM_DAMAGED, DICOM_TRUNCATED, DICOM_NO_PIXELS, DICOM_BIG_ENDIAN, DICOM_DEFLATED,
            IMAGE_TOO_SMALL, IMAGE_TOO_LARGE, DICOM_TOO_LARGE.
    """
    start = PREAMBLE + len(PREFIX) if data[PREAMBLE : PREAMBLE + len(PREFIX)] == PREFIX else 0
    if is_big_endian(data[start:]):
        raise refusals.big_endian()
    budget = ReadBudget()
    meta, reader = read_elements(data, start, (TRANSFER_SYNTAX,), lambda tag: tag >> 16 != META_GROUP, budget)
    transfer_syntax = meta.uid(TRANSFER_SYNTAX)
    syntax.check_readable(transfer_syntax)
    elements, reader = read_elements(data, reader.tell(), TAGS, (PIXEL_ELEMENTS | {PER_FRAME}).__contains__, budget)
    items: list[slice] = []
    implicit = is_implicit(data[reader.tell() :][:6])
    if data[reader.tell() :][:4] == PER_FRAME_TAG:
        # Not read with the rest: of hundreds of frames one may be wanted.
        value, length = find_value(data, reader.tell())
        items, end = list_items(data, value, length, implicit, budget)
        _, reader = read_elements(data, end, TAGS, PIXEL_ELEMENTS.__contains__, budget)
    rows, columns = elements.integer(ROWS), elements.integer(COLUMNS)
    if reader.is_at_end:
        raise refusals.truncated() if rows or reader.is_cut else refusals.no_pixels()
    if not rows or not columns:
        raise refusals.damaged()
    check_dimensions(columns, rows, limits)
    frames = count_frames(elements)
    if frames > limits.max_frames or frames * rows * columns * WORD.itemsize > limits.max_frame_bytes:
        raise refusals.too_large(frames, frames * rows * columns * WORD.itemsize)
    if items and len(items) != frames:
        raise refusals.damaged()
    is_lossy = transfer_syntax in syntax.LOSSY or elements.text(LOSSY_COMPRESSION) == "01"
    groups = FunctionalGroups(elements, lambda frame: read_items(data[items[frame]], implicit, budget) if items else [])
    pixels = find_pixels(data, reader.tell())
    return DicomFile(data, transfer_syntax, elements, pixels, rows, columns, frames, is_lossy, groups)


def count_frames(elements: Elements) -> int:
    """Returns how many frames a file says it has, 1 where it says nothing."""
    count = elements.number(FRAMES)
    if count is None:
        return 1
    if not 1 <= count < MOST_FRAMES or count != int(count):
        raise refusals.damaged()
    return int(count)


def read_frame(file: DicomFile, frame: int = 0) -> tuple[NDArray[np.uint16], PixelFormat]:
    """Returns the numbers of a frame as they are stored, and what they mean.

    Args:
        file: the file.
        frame: which frame, from 1; 0: the only one.

    Returns:
        uint16 [rows, columns], unused bits included.

    Raises:
        ImageError: see ``decode_dicom``.
        UnavailableError, OverloadedError: see ``decode_frame``.
    """
    if (modality := file.elements.text(MODALITY)) != "CT":
        raise refusals.other_modality(modality)
    index = choose_frame(frame, file.frames)
    shape = read_shape(file.elements)
    if file.pixels.is_float:
        raise refusals.other_bit_depth()
    meaning = read_pixel_format(file.elements, file.groups.find(index, RESCALE_GROUP), shape)
    if file.pixels.length == UNDEFINED_LENGTH or file.transfer_syntax not in (*syntax.NATIVE, ""):
        return unpack_words(file, shape, index), meaning
    return find_words(file, shape, index), meaning


def find_pixels(data: bytes, start: int) -> PixelElement:
    """Returns where the value of the element of pixels stands that begins at ``start``."""
    return PixelElement(*find_value(data, start), is_float=data[start : start + 4] != PIXELS_TAG)


def find_value(data: bytes, start: int) -> tuple[int, int]:
    """Returns where the value of an element of pixels or items stands that begins at ``start``, and its length."""
    value = start + (12 if data[start + 4 : start + 6] in LONG_VRS else 8)
    return value, int.from_bytes(data[value - 4 : value], "little")


def find_words(file: DicomFile, shape: FrameShape, index: int) -> NDArray[np.uint16]:
    """Returns the words of one uncompressed frame (from 0), where they stand in the file.

    Raises:
        ImageError: reasons DICOM_PIXEL_LENGTH, DICOM_TRUNCATED.
    """
    count = shape.rows * shape.columns
    if file.pixels.length != file.frames * count * WORD.itemsize:
        raise refusals.other_length()
    if file.pixels.start + file.pixels.length > len(file.data):
        raise refusals.truncated()
    offset = file.pixels.start + index * count * WORD.itemsize
    return np.frombuffer(file.data, WORD, count, offset).reshape(shape.rows, shape.columns)


def unpack_words(file: DicomFile, shape: FrameShape, index: int) -> NDArray[np.uint16]:
    """Returns the words of one compressed frame, decoded by a process of its own.

    Raises:
        ImageError: reasons DICOM_JPEG_12_BIT, DICOM_NO_DECODER, DICOM_UNDECODABLE, DICOM_TRUNCATED.
        UnavailableError, OverloadedError: see ``decode_frame``.
    """
    syntax.check_compressed(file.transfer_syntax)
    packed = memoryview(file.data)[file.pixels.start :]
    return decode_frame(file.transfer_syntax, packed, index, file.frames, shape)
