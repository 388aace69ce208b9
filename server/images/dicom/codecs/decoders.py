"""Decodes one frame with the codec of its transfer syntax. Runs in decoder processes alone, for a codec may crash.

Each codec is loaded when it is first needed: most hospitals use one. What the compressed data says of itself is looked
at before anything is decoded, since codecs allocate what that says, and fill it with whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from server.images.dicom.codecs.wire import count_bytes
from server.images.dicom.header import FrameShape

WORD = 2
"""Bytes a pixel."""

RLE_HEADER = 64
"""Bytes: how many segments there are, and up to 15 offsets (PS3.5 G.5)."""

FRAME_MARKERS = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
"""Start of frame: SOF0 to SOF15 (ITU-T T.81, table B.1) and JPEG-LS's SOF55."""


class MismatchError(Exception):
    """The compressed data holds an image of another kind than the header says."""


def load(syntax: str) -> None:
    """Loads what decodes a transfer syntax; ImportError where it is not installed."""
    import_module(DECODERS[syntax].module)


def decode(syntax: str, data: bytes, shape: FrameShape) -> bytes:
    """Decodes a frame.

    Args:
        syntax: UID of a transfer syntax, one of ``DECODERS``.
        data: of one frame, as encoded.
        shape: what the header says.

    Returns:
        Words of 16 bits, little endian, row by row. Of a lossless file they are those that were encoded.

    Raises:
        MismatchError: see there.
        MemoryError: it would take too much.
        Exception: whatever a codec raises.
    """
    words = DECODERS[syntax].decode(data, shape)
    if len(words) != count_bytes(shape):
        raise MismatchError
    return words


def check(shape: FrameShape, rows: int, columns: int, samples: int, precision: int) -> None:
    """Compares what the compressed data says of itself with the header. Some writers encode whole words."""
    if (rows, columns, samples) != (shape.rows, shape.columns, 1) or not 8 < precision <= 8 * WORD:
        raise MismatchError


def decode_rle(data: bytes, shape: FrameShape) -> bytes:
    """RLE (PS3.5 G): a PackBits segment for the higher bytes, then one for the lower.

    It does not say of what size the image is. Some writers pad it, but not by a row.
    """
    if int.from_bytes(data[:4], "little") != WORD:
        raise MismatchError
    first, second = (int.from_bytes(data[at : at + 4], "little") for at in (4, 8))
    if not RLE_HEADER <= first < second < len(data):
        raise ValueError("offsets")
    words = bytearray(count_bytes(shape))
    for place, segment in ((1, data[first:second]), (0, data[second:])):
        words[place::WORD] = unpack_bits(segment, shape.rows * shape.columns)
        with suppress(ValueError):
            unpack_bits(segment, (shape.rows + 1) * shape.columns)
            raise MismatchError
    return bytes(words)


def unpack_bits(data: bytes, count: int) -> bytes:
    """The first ``count`` bytes of PackBits, which Pillow has for TIFF; ValueError where it has fewer."""
    from PIL import Image

    return Image.frombytes("L", (count, 1), data, "packbits", "L").tobytes()


def decode_jpeg(data: bytes, shape: FrameShape, *, syntax: str) -> bytes:
    """JPEG Lossless and JPEG-LS, by GDCM. ``syntax`` is the UID of the transfer syntax.

    pyjpegls has a newer CharLS for JPEG-LS, which takes seconds to find out that a file ends too early (measured with
    1.5.1: 8 % of damaged files, where GDCM refuses all within milliseconds).
    """
    import gdcm

    rows, columns, samples, precision = read_jpeg_header(data)
    check(shape, rows, columns, samples, precision)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 8 * WORD, precision, precision - 1, int(shape.is_signed)))
    if (text := image.GetBuffer()) is None:
        raise ValueError("damaged")
    words: bytes = text.encode("utf-8", "surrogateescape")  # the wrapper makes a text of a char*, by this rule
    return words


def decode_jpeg_2000(data: bytes, shape: FrameShape) -> bytes:
    """JPEG 2000 and HTJ2K, by OpenJPEG in pylibjpeg-openjpeg."""
    from openjpeg.utils import decode_pixel_data, get_parameters

    said = get_parameters(data)
    check(shape, said["rows"], said["columns"], said["samples_per_pixel"], said["precision"])
    if said["is_signed"] != shape.is_signed:
        # Either may be wrong, and both readings give plausible values (pydicom, issue 1149).
        raise MismatchError
    return bytes(decode_pixel_data(data, version=2))


def read_jpeg_header(data: bytes) -> tuple[int, int, int, int]:
    """Rows, columns, samples a pixel and precision of a JPEG or JPEG-LS image, from its first frame header.

    Raises:
        ValueError: there is none.
    """
    position = 2
    while data[:2] == b"\xff\xd8" and position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in FRAME_MARKERS and position + 10 <= len(data):
            rows, columns = (int.from_bytes(data[position + i : position + i + 2], "big") for i in (5, 7))
            return rows, columns, data[position + 9], data[position + 4]
        position += 2 + length
    raise ValueError("no frame")


@dataclass(frozen=True)
class Codec:
    """What decodes a transfer syntax."""

    module: str
    """It has to be installed."""

    decode: Callable[[bytes, FrameShape], bytes]


def by_gdcm(syntax: str) -> Codec:
    return Codec("gdcm", partial(decode_jpeg, syntax=syntax))


JPEG = "1.2.840.10008.1.2.4"
RLE = Codec("PIL.Image", decode_rle)
OPENJPEG = Codec("openjpeg.utils", decode_jpeg_2000)
DECODERS = {
    "1.2.840.10008.1.2.5": RLE,
    **{f"{JPEG}.{number}": by_gdcm(f"{JPEG}.{number}") for number in (57, 70, 80, 81)},
    **{f"{JPEG}.{number}": OPENJPEG for number in (90, 91, 201, 202, 203)},
}
"""One for each transfer syntax, by its UID, and not whichever is found: they differ in what they make of odd files."""
