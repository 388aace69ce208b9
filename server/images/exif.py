"""The two facts that are wanted of a file's metadata: which way up it is, and where other pictures in it begin.

Exif and MPF are TIFF directories. Only the first directory is read, and of it only the entries that are asked for: a
general reader follows chains of directories that a hostile file makes endless. Metadata that cannot be read counts as
none, as it does in viewers.
"""

from __future__ import annotations

import re
import struct
from typing import Any

EXIF_WORD = b"Exif\0\0"
ORIENTATION = 0x0112
MP_ENTRIES = 0xB002
MP_ENTRY_BYTES = 16  # attributes, size, offset (4 bytes each), two dependent pictures (CIPA DC-007, 5.2.3.3)
MAX_PICTURES = 16

INTEGERS = {1: "B", 3: "H", 4: "I"}
"""TIFF's types of whole numbers (TIFF 6.0, section 2), as ``struct`` names them."""

XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
MAX_XMP_BYTES = 65536


def read_entry(tiff: Any, tag: int) -> tuple[str, int, int, int] | None:
    """Finds an entry of the first directory: byte order, type, count, and where its 4 bytes of value are."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(tiff[:4]))
    if order is None or len(tiff) < 10:
        return None
    start = struct.unpack_from(order + "I", tiff, 4)[0]
    if start + 2 > len(tiff):
        return None
    count = min(struct.unpack_from(order + "H", tiff, start)[0], (len(tiff) - start - 2) // 12)
    for position in range(start + 2, start + 2 + 12 * count, 12):
        found, kind, values = struct.unpack_from(order + "HHI", tiff, position)
        if found == tag:
            return order, kind, values, position + 8
    return None


def read_orientation(tiff: Any, xmp: bytes = b"") -> int:
    """Returns the orientation, 1 to 8, that Exif states, or else XMP; 1, which is upright, if neither does.

    Args:
        tiff: the Exif block, with or without the word before it.
        xmp: an XMP packet.
    """
    tiff = tiff[len(EXIF_WORD) :] if tiff[: len(EXIF_WORD)] == EXIF_WORD else tiff
    entry = read_entry(tiff, ORIENTATION)
    if entry is not None and entry[1] in INTEGERS:
        order, kind, _, position = entry
        return int(struct.unpack_from(order + INTEGERS[kind], tiff, position)[0])
    found = XMP_ORIENTATION.search(xmp[:MAX_XMP_BYTES])
    return int(found[1]) if found else 1


def read_picture_offsets(tiff: Any) -> list[int]:
    """Returns where the further pictures of a multi-picture file begin, counted from the index's own start."""
    entry = read_entry(tiff, MP_ENTRIES)
    if entry is None:
        return []
    order, _, size, position = entry
    start = struct.unpack_from(order + "I", tiff, position)[0]
    pictures = min(size // MP_ENTRY_BYTES, MAX_PICTURES, max(0, len(tiff) - start) // MP_ENTRY_BYTES)
    return [struct.unpack_from(order + "I", tiff, start + MP_ENTRY_BYTES * n + 8)[0] for n in range(1, pictures)]
