"""Where in encapsulated Pixel Data a frame is (PS3.5 A.4): in one item, or in several."""

from __future__ import annotations

import struct

from server.images.dicom import refusals

ITEM = b"\xfe\xff\x00\xe0"
DELIMITER = b"\xfe\xff\xdd\xe0"
HEADER = 8
"""Bytes before an item's value: its tag, its length."""

MOST_SPARE_ITEMS = 4096
"""Items besides one for each frame: some writers cut a frame into pieces of 64 KB, or of less."""


def take_frame(data: bytes | memoryview, index: int, frames: int) -> bytes:
    """Returns the compressed data of one frame.

    Args:
        data: from the value of Pixel Data on: a Basic Offset Table, which may be empty, fragments, a delimiter, and
            whatever comes then.
        index: which one, from 0.
        frames: how many there are by the header.

    Raises:
        ImageError: reasons DICOM_UNDECODABLE, it is not of that form, or does not say where frames begin, and
            DICOM_TRUNCATED, it ends before the delimiter.
    """
    table, *fragments = list_items(data, frames + MOST_SPARE_ITEMS)
    if frames > 1 and len(fragments) == frames:
        fragments = fragments[index : index + 1]
    elif frames > 1:
        starts = [*read_offsets(data, table, frames), len(data)]
        first, after = (table.stop + start for start in starts[index : index + 2])
        fragments = [one for one in fragments if first <= one.start - HEADER < after]
    if not fragments:
        raise refusals.broken_items()
    return b"".join(data[one] for one in fragments)


def list_items(data: bytes | memoryview, most: int) -> list[slice]:
    """Returns where the values of the items are, at least one. Raises as ``take_frame``."""
    items: list[slice] = []
    position = 0
    while (tag := data[position : position + 4]) != DELIMITER:
        start = position + HEADER
        if start > len(data):
            raise refusals.truncated()
        if tag != ITEM or len(items) == most:
            raise refusals.broken_items()
        position = start + int.from_bytes(data[start - 4 : start], "little")
        items.append(slice(start, position))
    if not items:
        raise refusals.broken_items()
    return items


def read_offsets(data: bytes | memoryview, table: slice, frames: int) -> tuple[int, ...]:
    """Returns the offsets of a Basic Offset Table, which count from the end of it. Raises as ``take_frame``."""
    if table.stop - table.start != 4 * frames:
        raise refusals.broken_items()
    return struct.unpack(f"<{frames}I", data[table])
