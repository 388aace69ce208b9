"""Where the items of a sequence stand (PS3.5, 7.5), so that of a thousand frames one can be read alone.

Sequences and items say how long they are, or end with a delimiter: then what is in them has to be walked through.
"""

from __future__ import annotations

import struct

from server.images.dicom import refusals
from server.images.dicom.budget import ReadBudget
from server.images.dicom.signature import is_implicit

ITEM, ITEM_END, SEQUENCE_END = 0xE000FFFE, 0xE00DFFFE, 0xE0DDFFFE
"""Tags as numbers of 32 bits, little endian."""

UNDEFINED_LENGTH = 0xFFFFFFFF
HEADER = struct.Struct("<II")
LONG_LENGTH = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""Representations whose length takes four bytes, behind two that say nothing (7.1.2)."""


def list_items(data: bytes, position: int, length: int, implicit: bool, budget: ReadBudget) -> tuple[list[slice], int]:
    """Finds the items of a sequence.

    Args:
        data: the file.
        position: where the value of the sequence begins.
        length: how long it is by its header.
        implicit: elements do not say how their values are represented.
        budget: of the file.

    Returns:
        Where each item stands, its header and end included, and where the sequence ends.

    Raises:
        ImageError: reasons DICOM_DAMAGED, DICOM_TRUNCATED, DICOM_TOO_LARGE.
    """
    end = len(data) if length == UNDEFINED_LENGTH else position + length
    items: list[slice] = []
    while position < end:
        tag, size = read_header(data, position, budget)
        start, position = position, position + HEADER.size
        if tag == SEQUENCE_END and length == UNDEFINED_LENGTH:
            return items, position
        if tag != ITEM:
            raise refusals.damaged()
        position = skip_item(data, position, implicit, budget) if size == UNDEFINED_LENGTH else position + size
        items.append(slice(start, position))
    if length == UNDEFINED_LENGTH or position != end or position > len(data):
        raise refusals.truncated()
    return items, position


def skip_item(data: bytes, position: int, implicit: bool, budget: ReadBudget) -> int:
    """Returns where an item ends whose elements begin at ``position`` and that does not say how long it is."""
    while True:
        tag, length = read_header(data, position, budget)
        if tag == ITEM_END:
            return position + HEADER.size
        vr = data[position + 4 : position + 6]
        has_vr = not implicit and not is_implicit(data[position : position + 6])
        position += HEADER.size
        if has_vr and vr in LONG_LENGTH:
            length = int.from_bytes(data[position : position + 4], "little")
            position += 4
        elif has_vr:
            length >>= 16
        if length == UNDEFINED_LENGTH:
            # What is of an unknown kind and has no length is a sequence without representations (6.2.2, note 7).
            position = list_items(data, position, length, implicit or vr == b"UN", budget)[1]
        else:
            position += length


def read_header(data: bytes, position: int, budget: ReadBudget) -> tuple[int, int]:
    """Returns tag and length of an item, or of an element without a representation."""
    budget.spend()
    if position + HEADER.size > len(data):
        raise refusals.truncated()
    tag, length = HEADER.unpack_from(data, position)
    return tag, length
