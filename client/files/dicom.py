"""How DICOM files begin: archives name them by numbers alone, so that what they are is told by their first bytes.

The server tells them by the same rule (``server.images.dicom.signature``), of which a client has no copy: one table of
tests holds for both.
"""

from __future__ import annotations

import struct

START_BYTES = 192
"""As many bytes of a file tell whether it is one."""

MARK_AT, PREAMBLE_END = 128, 132
"""Between them the letters DICM stand, behind bytes of any content (PS3.10, 7.1)."""

_OTHER_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")

_META, _IDENTIFICATION = 0x0002, 0x0008
"""Groups that a file begins with which has lost its preamble: of the file, or of what is in it."""

_FIRST_ELEMENTS = {
    _META: {0x0000: b"UL", 0x0001: b"OB", 0x0002: b"UI", 0x0003: b"UI", 0x0010: b"UI"},
    _IDENTIFICATION: {
        0x0000: b"UL",
        0x0001: b"UL",
        0x0005: b"CS",
        0x0006: b"SQ",
        0x0008: b"CS",
        0x0012: b"DA",
        0x0013: b"TM",
        0x0014: b"UI",
        0x0016: b"UI",
        0x0018: b"UI",
    },
}
"""Elements that may be the first ones, and how their values are represented (VR): elements are in ascending order, and
a class is never missing."""

_LONGEST_VALUE = 64
_ITEM = (0xFFFE, 0xE000)
"""Tag that a sequence begins with, which may be long, or say at its end how long it is."""


def is_dicom_start(start: bytes) -> bool:
    """True for the first bytes of a DICOM file, ``START_BYTES`` of it or all that there are: one with a preamble and
    the letters DICM, or one without that begins with two plausible elements, in either byte order."""
    if start.startswith(_OTHER_IMAGES):
        return False
    return start[MARK_AT:PREAMBLE_END] == b"DICM" or any(
        _begins_with_elements(start[:START_BYTES], order) for order in "<>"
    )


def is_dicom_file(path: str) -> bool:
    """True for a file that begins as DICOM files do. One that cannot be read is none."""
    try:
        with open(path, "rb") as file:
            return is_dicom_start(file.read(START_BYTES))
    except (OSError, ValueError):
        return False


def _begins_with_elements(start: bytes, order: str) -> bool:
    """True when an element that may be the first one is there to its end, and one that may follow it behind."""
    if len(start) < 16:
        return False
    group, element = struct.unpack_from(f"{order}HH", start)
    representation = _FIRST_ELEMENTS.get(group, {}).get(element)
    if representation is None:
        return False
    if start[4:6] != representation:  # it is not written down
        value_at, length = 8, struct.unpack_from(f"{order}I", start, 4)[0]
    elif representation in (b"OB", b"SQ"):
        value_at, length = 12, struct.unpack_from(f"{order}I", start, 8)[0]
    else:
        value_at, length = 8, struct.unpack_from(f"{order}H", start, 6)[0]
    if representation == b"SQ" and length:
        return start[value_at : value_at + 4] == struct.pack(f"{order}HH", *_ITEM)
    if length % 2 or (length != 4 if representation == b"UL" else length > _LONGEST_VALUE):
        return False
    next_at = value_at + length
    if next_at + 8 > len(start):
        return False
    next_group, next_element = struct.unpack_from(f"{order}HH", start, next_at)
    is_next = next_group == group and next_element > element
    return bool(is_next or (group, next_group) == (_META, _IDENTIFICATION))
