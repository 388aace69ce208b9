"""Tells DICOM files by how they begin, whatever they are called. Needs no library."""

from __future__ import annotations

import struct

PREAMBLE, PREFIX = 128, b"DICM"
"""Any 128 bytes and these letters stand before everything else (PS3.10, 7.1)."""

SIGNATURE_BYTES = 192
"""So many bytes of a file's beginning are enough to tell."""

FILE_META, IDENTIFYING = 0x0002, 0x0008
"""Groups with which files begin that have lost their preamble: the file meta information, or the data set itself."""

EARLY_ELEMENTS = {
    FILE_META: {0x0000: b"UL", 0x0001: b"OB", 0x0002: b"UI", 0x0003: b"UI", 0x0010: b"UI"},
    IDENTIFYING: {
        **dict.fromkeys((0x0000, 0x0001), b"UL"),
        **dict.fromkeys((0x0005, 0x0008), b"CS"),
        **dict.fromkeys((0x0014, 0x0016, 0x0018), b"UI"),
        0x0006: b"SQ",
        0x0012: b"DA",
        0x0013: b"TM",
    },
}
"""What may come first in these groups, and how its value is represented (VR)."""

LONGEST = 64
"""Bytes that the first value has at most, other than a sequence."""

ITEM = (0xFFFE, 0xE000)
"""Tag with which a sequence begins."""

OTHERS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""PNG and JPEG: what begins like that is none of ours, also where the letters happen to stand at the right place."""


def is_dicom(data: bytes) -> bool:
    """Whether a file is DICOM by its first bytes: with a preamble, or a data set alone as old archives keep it.

    Args:
        data: the file, or its first ``SIGNATURE_BYTES``.
    """
    if data.startswith(OTHERS):
        return False
    return data[PREAMBLE : PREAMBLE + len(PREFIX)] == PREFIX or is_headless(data)


def is_headless(data: bytes) -> bool:
    """Whether a file begins as a DICOM data set does, of either byte order: by its first two elements."""
    return begins_data_set(data[:SIGNATURE_BYTES], "<") or is_big_endian(data)


def is_big_endian(data: bytes) -> bool:
    """Whether a file begins as a data set of the byte order that was retired."""
    return begins_data_set(data[:SIGNATURE_BYTES], ">")


def begins_data_set(start: bytes, order: str) -> bool:
    """Whether bytes begin with an element that may come first, whole, and go on with one that may follow it."""
    if len(start) < 16:
        return False
    group, element = struct.unpack_from(f"{order}HH", start)
    vr = EARLY_ELEMENTS.get(group, {}).get(element)
    if vr is None:
        return False
    length, begin = read_length(start, 0, vr, order)
    if vr == b"SQ" and length:  # it may be long, or end where it says so, but begins with an item
        return start[begin : begin + 4] == struct.pack(f"{order}HH", *ITEM)
    if length % 2 or (length != 4 if vr == b"UL" else length > LONGEST):
        return False
    end = begin + length
    if end + 8 > len(start):
        return False
    next_group, next_element = struct.unpack_from(f"{order}HH", start, end)
    return bool(next_group == group and next_element > element) or (next_group == IDENTIFYING and group == FILE_META)


def read_length(data: bytes, position: int, vr: bytes, order: str) -> tuple[int, int]:
    """Returns the length of an element's value and where that begins, with its VR written down or without."""
    if data[position + 4 : position + 6] != vr:
        return struct.unpack_from(f"{order}I", data, position + 4)[0], position + 8
    if vr in (b"OB", b"SQ"):
        return struct.unpack_from(f"{order}I", data, position + 8)[0], position + 12
    return struct.unpack_from(f"{order}H", data, position + 6)[0], position + 8


def is_implicit(element: bytes) -> bool:
    """Whether an element, of which six bytes are given, does not say how its value is represented (VR)."""
    vr = element[4:6]
    return not (vr.isalpha() and vr.isupper())
