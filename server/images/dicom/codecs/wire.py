"""What a server and a decoder process say to each other: each message is a header of fixed length, then its bytes.

A decoder says READY when it has started, and again when it has loaded what a request needs. Then it gets what is to be
decoded and answers once; or it answers at once that it has no such codec.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from server.images.dicom.header import FrameShape

REQUEST = struct.Struct("<64sIIB?Q")
"""UID of the transfer syntax, the fields of ``FrameShape``, length of what is to be decoded."""

ANSWER = struct.Struct("<B?Q")
"""An ``Answer``, whether the decoder has so much memory that another should take its place, length of the words."""


class Answer(IntEnum):
    """How a request ended. Only WORDS has bytes behind it."""

    READY = 0
    """Not an end: it goes on."""

    WORDS = 1
    UNDECODABLE = 2
    """The codec makes no pixels of it."""

    MISMATCH = 3
    """It holds an image of another size, depth or sign than the file's header says."""

    MISSING = 4
    """The codec is not installed."""

    TOO_LARGE = 5
    """Decoding takes more memory than a decoder may have."""


def count_bytes(shape: FrameShape) -> int:
    """Bytes of a decoded frame: words of 16 bits."""
    return 2 * shape.rows * shape.columns


def pack_request(syntax: str, shape: FrameShape, length: int) -> bytes:
    """The header of a request."""
    return REQUEST.pack(syntax.encode("ascii"), shape.rows, shape.columns, shape.bits_stored, shape.is_signed, length)


def unpack_request(header: bytes) -> tuple[str, FrameShape, int]:
    """Transfer syntax, shape, and length of what follows."""
    syntax, *shape, length = REQUEST.unpack(header)
    return syntax.rstrip(b"\0").decode("ascii"), FrameShape(*shape), length
