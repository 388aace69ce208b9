"""The parts of a multipart answer (RFC 2046, 5.1), one after the other as they come, each bounded in length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MOST_HEAD_BYTES = 1 << 14
"""Headers of a part, and what stands before the first one."""

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))\s*(?:;|$)', re.IGNORECASE)


class MultipartError(Exception):
    """It is no multipart answer, or no whole one; the message has nothing of its content."""


def read_boundary(content_type: str) -> bytes:
    """The boundary that a Content-Type names.

    Raises:
        MultipartError: it names none.
    """
    found = _BOUNDARY.search(content_type)
    if found is None or not content_type.lower().startswith("multipart/related") or not content_type.isascii():
        raise MultipartError("it is no multipart/related with a boundary")
    return (found[1] or found[2]).encode("ascii")


def split_parts(pieces: Iterable[bytes], boundary: bytes, most_bytes: int) -> Iterator[bytes]:
    """The content of each part.

    Args:
        pieces: the body, cut anywhere.
        boundary: what is between the parts.
        most_bytes: of one part.

    Raises:
        MultipartError: a part is longer, or the last one has no end.
    """
    buffer = Buffer(pieces)
    delimiter = b"\r\n--" + boundary
    buffer.data += b"\r\n"  # so that the first delimiter is like the others
    buffer.take_until(delimiter, MOST_HEAD_BYTES)
    while (start := buffer.take(2)) != b"--":
        buffer.data[:0] = start  # where a part has no headers, its first line end is one of the two that end them
        buffer.take_until(b"\r\n\r\n", MOST_HEAD_BYTES)
        yield buffer.take_until(delimiter, most_bytes)


class Buffer:
    """What has come and was not taken yet."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.data = bytearray()

    def take(self, count: int) -> bytes:
        """The next bytes."""
        while len(self.data) < count:
            self._fill()
        taken = bytes(self.data[:count])
        del self.data[:count]
        return taken

    def take_until(self, end: bytes, most: int) -> bytes:
        """What stands before ``end``, which is taken, too."""
        searched = 0
        while (place := self.data.find(end, searched)) < 0:
            if len(self.data) > most + len(end):
                raise MultipartError(f"a part of it is longer than {most} bytes")
            searched = max(0, len(self.data) - len(end) + 1)
            self._fill()
        if place > most:
            raise MultipartError(f"a part of it is longer than {most} bytes")
        found = self.take(place)
        del self.data[: len(end)]
        return found

    def _fill(self) -> None:
        piece = next(self._pieces, b"")
        if not piece:
            raise MultipartError("it has no end")
        self.data += piece
