"""Where images end: a file that is not there to its end waits, and what follows an end may be another image."""

from __future__ import annotations

import io
import re
from contextlib import nullcontext
from typing import BinaryIO

from .._config import DEFAULT_MAX_IMAGE_BYTES
from .dicom import START_BYTES, is_dicom_start
from .dicom_end import has_dicom_end

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
"""The last chunk: its length, name and CRC (PNG 3rd edition, 11.2.5)."""

_JPEG_MARK = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = 0xDA

_JOINT = re.compile(rb"(?:IEND\xaeB`\x82|\xff\xd9)[\s\x00]{0,16}(?:\x89PNG\r\n\x1a\n|\xff\xd8\xff)")
"""Where an image ends and another begins."""

_SEVERAL_IN_ONE = b"MPF\x00"
"""In the header of a camera's JPEG that has more pictures behind the first (CIPA DC-007)."""


def has_image_end(data: bytes) -> bool | None:
    """Returns True when the image is there to its end, False when its end is missing, None for what is no image.

    A PNG holds its last chunk; a JPEG holds the marker EOI behind the start of its first scan, because a thumbnail in
    its header has an EOI of its own; a DICOM file holds all that its elements announce. Bytes behind the end do no
    harm. Nothing, or zeros (space that a writer reserved before it fills it), counts as an image whose end is missing.
    """
    if data.startswith(_PNG_START):
        return data.rfind(_PNG_END) > 0
    if data.startswith(_JPEG_MARK):
        scan = _find_scan(data)
        return scan is not None and data.rfind(_JPEG_END, scan) > 0
    if is_dicom_start(data[:START_BYTES]):
        return has_dicom_end(data)
    head = data[:8]
    if not head.strip(b"\x00") or _PNG_START.startswith(head) or _JPEG_MARK.startswith(head):
        return False
    return None


def _find_scan(data: bytes) -> int | None:
    """Returns where the first scan of a JPEG begins, walking the segments before it (ITU-T T.81, B.1.1.4)."""
    position = len(_JPEG_MARK)
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


def holds_several(data: bytes) -> bool:
    """True when one image follows another. A JPEG's thumbnail, and the pictures that a camera's file has behind the
    first, belong to one."""
    start = 0
    if data.startswith(_JPEG_MARK):
        start = _find_scan(data) or len(data)
    elif not data.startswith(_PNG_START):
        return False
    return _SEVERAL_IN_ONE not in data[:start] and _JOINT.search(data, start) is not None


class SingleImage:
    """Standard input or another pipe, which fails when it holds more than one image: a decoder would take the first and
    say nothing.

    Args:
        source: standard input, or the path of a pipe; read to its end at the first ``read``, or to the most that an
            image may have.
    """

    def __init__(self, source: BinaryIO | str) -> None:
        self._source = source
        self._data: io.BytesIO | None = None

    @property
    def name(self) -> str:
        """The path of a pipe, ``-`` for standard input."""
        return self._source if isinstance(self._source, str) else "-"

    def read(self, size: int) -> bytes:
        """Returns the next bytes, ``size`` at most.

        Raises:
            ValueError: there are several images.
            OSError: the stream cannot be read.
        """
        if self._data is None:
            with open(self._source, "rb") if isinstance(self._source, str) else nullcontext(self._source) as stream:
                data = stream.read(DEFAULT_MAX_IMAGE_BYTES + 1)
            if holds_several(data):
                where = self._source if isinstance(self._source, str) else "standard input"
                raise ValueError(f"{where} holds several images: name them as files, or send one at a time")
            self._data = io.BytesIO(data)
        return self._data.read(size)
