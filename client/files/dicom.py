"""How DICOM files begin: archives name them by numbers alone, so that what they are is told by their first bytes.

The server tells them by the same rule (``server.images.dicom``), of which a client has no copy: one table of tests
holds for both.
"""

from __future__ import annotations

START_BYTES = 132
"""As many bytes of a file tell whether it is one."""

_MARK = b"DICM"
_MARK_AT = 128
"""Behind a preamble of any content (PS3.10, 7.1)."""

_LAST_ELEMENTS = {0x0002: 0x0010, 0x0008: 0x0018}
"""Groups that a file without a preamble begins with (of files, of identification), and the last of their elements that
may come first: elements are in ascending order, and a class or transfer syntax is never missing."""

_REPRESENTATIONS = (b"UL", b"OB", b"UI", b"CS", b"SQ", b"DA", b"TM", b"SH", b"AE", b"DT")
"""Value representations of those elements, where they are stated (explicit VR)."""

_LONGEST_VALUE = 1024
"""Bytes that the value of one of them may have where they are not (implicit VR)."""


def is_dicom_start(start: bytes) -> bool:
    """True for the first bytes of a DICOM file, ``START_BYTES`` at least where it has so many: one with a preamble and
    the letters DICM, or one without whose first element is a plausible one, in little endian."""
    if start[_MARK_AT : _MARK_AT + len(_MARK)] == _MARK:
        return True
    if len(start) < 8:
        return False
    group, element = int.from_bytes(start[:2], "little"), int.from_bytes(start[2:4], "little")
    if element > _LAST_ELEMENTS.get(group, -1):
        return False
    length = int.from_bytes(start[4:8], "little")
    return start[4:6] in _REPRESENTATIONS or (length <= _LONGEST_VALUE and length % 2 == 0)


def is_dicom_file(path: str) -> bool:
    """True for a file that begins as DICOM files do. One that cannot be read is none."""
    try:
        with open(path, "rb") as file:
            return is_dicom_start(file.read(START_BYTES))
    except (OSError, ValueError):
        return False
