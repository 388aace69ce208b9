"""Where a DICOM file ends: one whose elements go on behind its last byte is not there to its end.

Only where elements begin and how long they are is read. What is not understood is for the server to judge.
"""

from __future__ import annotations

import struct

from .dicom import MARK_AT, PREAMBLE_END

_UNDEFINED = 0xFFFFFFFF
"""Length of what says by a delimiter where it ends (PS3.5, 7.5)."""

_DELIMITERS = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_PIXELS = (0x7FE0, 0x0010)
_TRANSFER_SYNTAX = (0x0002, 0x0010)
_OTHER_SYNTAXES = (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")
"""Big endian and deflated, which no server takes."""

_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Value representations whose length has four bytes, behind two that are reserved (PS3.5, 7.1.2)."""


def has_dicom_end(data: bytes) -> bool | None:
    """Returns True when the pixels of a DICOM file are there and nothing is missing behind them, False when something
    is, None where that cannot be told."""
    position = PREAMBLE_END if data[MARK_AT:PREAMBLE_END] == b"DICM" else 0
    depth = 0  # of sequences and items that a delimiter ends
    has_pixels = are_fragments = False
    while position < len(data):
        if position + 8 > len(data):
            return False
        tag = struct.unpack_from("<HH", data, position)
        if tag[0] == _DELIMITERS:
            length = int.from_bytes(data[position + 4 : position + 8], "little")
            position += 8
            if tag[1] == _ITEM:
                if are_fragments:
                    position += length
                elif length == _UNDEFINED:
                    depth += 1
                # Otherwise its elements follow, as those of the sequence.
            elif tag[1] in (_ITEM_END, _SEQUENCE_END) and depth:
                depth -= 1
                are_fragments = False
            else:
                return None
            continue
        begin, length = _read_header(data, position)
        if tag == _TRANSFER_SYNTAX and data[begin : begin + length].rstrip(b"\0 ") in _OTHER_SYNTAXES:
            return None
        if tag == _PIXELS and not depth:
            has_pixels = True
        position = begin
        if length != _UNDEFINED:
            position += length
        else:
            depth += 1
            are_fragments = tag == _PIXELS
    if position > len(data) or depth:
        return False
    return True if has_pixels else None


def _read_header(data: bytes, position: int) -> tuple[int, int]:
    """Returns where the value of an element begins, and its length; beyond the end where they are not there."""
    representation = data[position + 4 : position + 6]
    if not (representation.isalpha() and representation.isupper()):  # not written down (implicit VR)
        return position + 8, int.from_bytes(data[position + 4 : position + 8], "little")
    if representation not in _LONG:
        return position + 8, int.from_bytes(data[position + 6 : position + 8], "little")
    return position + 12, int.from_bytes(data[position + 8 : position + 12], "little")
