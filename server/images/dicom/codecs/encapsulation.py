"""Where in encapsulated Pixel Data a frame is (PS3.5 A.4): in one item, or in several."""

from __future__ import annotations

import struct

from server.errors import ImageError

ITEM = b"\xfe\xff\x00\xe0"
DELIMITER = b"\xfe\xff\xdd\xe0"
HEADER = 8
"""Bytes before an item's value: its tag, its length."""

MOST_SPARE_ITEMS = 4096
"""Items besides one for each frame: some writers cut a frame into pieces of 64 KB, or of less."""


def take_frame(data: bytes, frame: int, frames: int) -> bytes:
    """Returns the compressed data of one frame.

    Args:
        data: the value of Pixel Data: a Basic Offset Table, which may be empty, and fragments.
        frame: which one, from 1; 0: the only one.
        frames: how many there are by the header, at least 1.

    Raises:
        ImageError: reason DICOM_UNDECODABLE, it is not of that form, or does not say where frames begin.
    """
    table, *fragments = list_items(data, frames + MOST_SPARE_ITEMS)
    index = max(frame, 1) - 1
    if frames > 1 and len(fragments) == frames:
        fragments = fragments[index : index + 1]
    elif frames > 1:
        starts = [*read_offsets(data, table, frames), len(data)]
        first, after = (table.stop + start for start in starts[index : index + 2])
        fragments = [one for one in fragments if first <= one.start - HEADER < after]
    if not fragments:
        raise broken_items()
    return b"".join(data[one] for one in fragments)


def list_items(data: bytes, most: int) -> list[slice]:
    """Returns where the values of the items are, at least one. Raises as ``take_frame``."""
    items: list[slice] = []
    position = 0
    while position < len(data) and data[position : position + 4] != DELIMITER:
        start = position + HEADER
        position = start + int.from_bytes(data[position + 4 : start], "little")
        if data[start - HEADER : start - 4] != ITEM or position > len(data) or len(items) == most:
            raise broken_items()
        items.append(slice(start, position))
    if not items:
        raise broken_items()
    return items


def read_offsets(data: bytes, table: slice, frames: int) -> tuple[int, ...]:
    """Returns the offsets of a Basic Offset Table, which count from the end of it. Raises as ``take_frame``."""
    if table.stop - table.start != 4 * frames:
        raise broken_items()
    return struct.unpack(f"<{frames}I", data[table])


def broken_items() -> ImageError:
    return ImageError(
        "DICOM_UNDECODABLE",
        "The compressed pixels of the DICOM file are not in the items that DICOM has for them. Export it again, "
        "uncompressed.",
    )
