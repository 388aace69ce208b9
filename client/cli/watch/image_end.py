"""Whether the bytes of an image go to its end: cheap marks of PNG and JPEG, for files that somebody may still write."""

from __future__ import annotations

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
"""The last chunk: its length, name and CRC (PNG 3rd edition, 11.2.5)."""

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = 0xDA


def has_image_end(data: bytes) -> bool | None:
    """Returns True when the image is there to its end, False when its end is missing, None for what is no image.

    A PNG holds its last chunk; a JPEG holds the marker EOI behind the start of its first scan, because a thumbnail in
    its header has an EOI of its own. Bytes behind the end do no harm. Nothing, or zeros (space that a writer reserved
    before it fills it), counts as an image whose end is missing.
    """
    if data.startswith(_PNG_START):
        return data.rfind(_PNG_END) > 0
    if data.startswith(_JPEG_START):
        scan = _find_scan(data)
        return scan is not None and data.rfind(_JPEG_END, scan) > 0
    head = data[:8]
    if not head.strip(b"\x00") or _PNG_START.startswith(head) or _JPEG_START.startswith(head):
        return False
    return None


def _find_scan(data: bytes) -> int | None:
    """Returns where the first scan of a JPEG begins, walking the segments before it (ITU-T T.81, B.1.1.4)."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:  # no segment: a damaged header, for the server to judge
            return position
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            position += 1
        elif marker == _JPEG_SCAN:
            return position
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
