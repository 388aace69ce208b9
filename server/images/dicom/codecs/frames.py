"""Compressed frames of DICOM files: found in the file, decoded elsewhere, looked at once more."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from server.images.dicom import refusals
from server.images.dicom.codecs.encapsulation import take_frame
from server.images.dicom.codecs.pool import DecoderPool
from server.images.dicom.header import FrameShape
from server.images.dicom.syntax import COMPRESSED, LOSSY

_pool = DecoderPool()
"""Of this process. What it starts is limited by the machine and not by who asks, so there is one."""


def limit_decoders(most: int) -> None:
    """Lets this process have so many decoder processes at most, instead of one for each processor."""
    global _pool
    previous, _pool = _pool, DecoderPool(most)
    previous.close()


def forget_decoders() -> None:
    """In a copy of this process, after fork(2): the decoders are those of the other one."""
    global _pool
    _pool = DecoderPool(_pool.most)


os.register_at_fork(after_in_child=forget_decoders)


def decode_frame(
    syntax: str, data: bytes | memoryview, index: int, frames: int, shape: FrameShape
) -> NDArray[np.uint16]:
    """Decodes a frame of a compressed file.

    Args:
        syntax: UID of its transfer syntax, one of ``server.images.dicom.syntax.COMPRESSED``.
        data: the file from the value of Pixel Data on, see ``take_frame``.
        index: which frame, from 0.
        frames: how many there are by the header.
        shape: what the header says, within the limits.

    Returns:
        uint16 [rows, columns]: words, of which the lowest ``shape.bits_stored`` bits count.

    Raises:
        ImageError: reasons DICOM_UNDECODABLE, DICOM_NO_DECODER.
        UnavailableError, OverloadedError: see ``DecoderPool.decode``.
    """
    packed = _pool.decode(syntax, take_frame(data, index, frames), shape)
    words = np.frombuffer(packed, "<u2").reshape(shape.rows, shape.columns)
    if syntax in LOSSY and not fits(words, shape):
        raise refusals.contradictory(COMPRESSED[syntax])
    return words


def fits(words: NDArray[np.uint16], shape: FrameShape) -> bool:
    """Whether words hold nothing above the bits stored but copies of their sign. What compression has changed must not
    be taken for a small value because it no longer fits."""
    unused = 16 - shape.bits_stored
    if not (words >> shape.bits_stored).any():
        return True
    signed = words.view(np.int16)
    return shape.is_signed and np.array_equal((signed << unused) >> unused, signed)
