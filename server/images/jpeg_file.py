"""A JPEG file: its segments are walked once and checked, and what its pixels need is taken from them and decoded.

The decoder, libjpeg-turbo through simplejpeg, sees tables, frame and scans, and two short segments made here that say
what JFIF and Adobe markers mean for colours. Exif, profiles, previews, comments and filling neither cost time nor can
break anything.

JPEG has no checksum. What can be known here is whether all scans of all components came, in an order that makes sense;
whether each scan's coded data are whole, the decoder finds. Pillow drops what libjpeg warns of, such as data that end
too early; here it is an error. A failure of ours (no memory, a mistake) is never taken for one of the image: only what
the decoder raises for bytes is translated. References are to ITU-T T.81.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import simplejpeg
from PIL import Image

from server.errors import ImageError
from server.images import image_file
from server.images.exif import EXIF_WORD, read_orientation, read_picture_offsets
from server.images.image_file import ImageLimits
from server.images.jpeg_scans import Component, ScanLedger

JPEG_SIGNATURE = b"\xff\xd8\xff"
SOI, EOI, SOS, DNL = 0xD8, 0xD9, 0xDA, 0xDC
DHT, DQT, DRI = 0xC4, 0xDB, 0xDD
APP0, APP1, APP2, APP14 = 0xE0, 0xE1, 0xE2, 0xEE
BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS = 0xC0, 0xC1, 0xC2, 0xC3
LEFT_OUT = frozenset((*range(APP0, APP0 + 16), DNL, 0xCC, 0xFE))
"""Application data, comments, arithmetic conditioning (no such frame is decoded), and a number of lines said twice."""

UNSUPPORTED = {
    **dict.fromkeys((0xC9, 0xCA, 0xCB), "an arithmetic-coded JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "a hierarchical JPEG"),
    0xF7: "a JPEG-LS",
}
"""Arithmetic coding feeds its decoder zeros where data end (D.2.6), so that no decoder can tell a cut file from a whole
one; what cannot be checked is not judged."""

MAX_SEGMENTS = 10_000
"""A profile of 8 MiB in segments of 64 kB makes 128; a progressive file has about 10 scans, each with its tables."""

MARKER = re.compile(rb"\xff++([^\x00])")
"""Any number of bytes of 255 may fill up before a marker (B.1.1.2)."""

SCAN_END = re.compile(rb"\xff(?:[^\x00\xff\xd0-\xd7]|(\xff++))")

JFIF_SEGMENT = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE_SEGMENT = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"  # and one byte more: the colour transform
XMP_WORD = b"http://ns.adobe.com/xap/1.0/\0"

NO_SHRINKING = 99.0
"""simplejpeg shrinks only if it gains at least this factor; it offers no more than 8."""

UNSUPPORTED_WORDS = ("not implemented", "unsupported", "not supported", "cannot handle")
MEMORY_WORDS = ("memory", "could not create")


@dataclass(frozen=True)
class JpegFile:
    """What the pixels of a JPEG file need. Not yet decoded."""

    width: int
    height: int
    channels: int
    """1 or 3."""

    lossless: bool
    orientation: int
    """As in Exif: 1 to 8, where 1 is upright; any other number means nothing."""

    stream: bytes
    """A JPEG file of this image and nothing else."""


class JpegWalk:
    """Collects what counts, segment after segment."""

    def __init__(self, data: bytes, limits: ImageLimits) -> None:
        self._data = data
        self._view = memoryview(data)
        self._limits = limits
        self._parts: list[bytes | memoryview] = []
        self._frame = (0, 0, 0)
        self._kind = 0
        self._ledger: ScanLedger | None = None
        self._saw_jfif = False
        self._adobe = b""
        self._exif = b""
        self._xmp = b""
        self._index: tuple[int, bytes] | None = None

    def add(self, marker: int, start: int, end: int) -> int:
        """Takes in one segment, without its marker and length, and returns where the next begins."""
        body = self._data[start:end]
        if marker in UNSUPPORTED:
            raise image_file.unsupported_image(UNSUPPORTED[marker])
        if marker in (BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS):
            self._add_frame(marker, body)
        elif marker == SOS:
            return self._add_scan(body, end)
        elif marker in (DHT, DQT, DRI):
            self._parts.append(b"\xff" + bytes((marker,)) + self._data[start - 2 : end])
        elif marker in LEFT_OUT:
            self._read_application(marker, start, body)
        else:
            raise self._broken()
        return end

    def _broken(self) -> ImageError:
        """Without a frame there is no image that could be called damaged."""
        return image_file.damaged_image() if self._kind else image_file.undecodable_image()

    def _add_frame(self, kind: int, body: bytes) -> None:
        """Reads a frame header (B.2.2)."""
        if self._kind or len(body) < 6 or len(body) != 6 + 3 * body[5]:
            raise self._broken()
        bits, height, width, channels = struct.unpack_from(">BHHB", body)
        if bits > 8:
            raise image_file.deep_image(bits)
        if bits < 8:
            raise image_file.shallow_image(bits)
        if not height and width:
            raise image_file.unsupported_image("a JPEG whose height is not in its header")
        if not width or not channels:
            raise image_file.undecodable_image()
        image_file.check_dimensions(width, height, self._limits)
        if channels == 4:
            raise ImageError(
                "IMAGE_COLOUR_MODE",
                "The image has the colour mode CMYK, which is not made for screens. Export it as grey or RGB.",
            )
        if channels not in (1, 3):
            raise image_file.unsupported_image(f"a JPEG of {channels} channels")
        components = [Component(*struct.unpack_from("BB", body, 6 + 3 * n)) for n in range(channels)]
        self._ledger = ScanLedger(width, height, components, kind)
        self._kind, self._frame = kind, (width, height, channels)
        self._parts.append(b"\xff" + bytes((kind,)) + struct.pack(">H", len(body) + 2) + body)

    def _add_scan(self, header: bytes, start: int) -> int:
        """Reads a scan's header and finds the end of its coded data, which hold no marker but restarts (B.1.1.5)."""
        if self._ledger is None:
            raise image_file.undecodable_image()
        canonical = self._ledger.add(header)
        self._parts.append(b"\xff\xda" + struct.pack(">H", len(canonical) + 2) + canonical)
        position = start
        for _ in range(MAX_SEGMENTS):
            found = SCAN_END.search(self._data, position)
            if found is None:
                raise image_file.truncated_image()
            code = self._data[found.end() : found.end() + 1]
            if found[1] is None or not b"\xd0" <= code <= b"\xd7":
                if found[1] is not None and code == b"\0":
                    break  # a filled 255 means two things to two decoders
                self._parts.append(self._view[start : found.start()])
                return found.start()
            position = found.end() + 1  # a restart, with filling before it
        raise image_file.damaged_image()

    def _read_application(self, marker: int, start: int, body: bytes) -> None:
        if marker == APP1:
            if not self._exif and body[:6] == EXIF_WORD:
                self._exif = body
            elif not self._xmp and body[: len(XMP_WORD)] == XMP_WORD:
                self._xmp = body
        elif marker == APP2 and self._index is None and body[:4] == b"MPF\0":
            self._index = start + 4, body[4:]
        elif self._ledger is not None and self._ledger.scans:
            pass  # colours are settled at the first scan
        elif marker == APP0 and len(body) >= 14 and body[:5] == b"JFIF\0":
            self._saw_jfif = True
        elif marker == APP14 and len(body) >= 12 and body[:5] == b"Adobe":
            self._adobe = ADOBE_SEGMENT + (b"\1" if body[11] else b"\0")

    def finish(self) -> JpegFile:
        """Returns what was collected, once the end marker has come."""
        if self._ledger is None:
            raise image_file.undecodable_image()
        if not self._ledger.makes_sense:
            raise image_file.damaged_image()
        if not self._ledger.is_complete():
            raise image_file.truncated_image()
        image_file.check_frames(1 + self._count_equals())
        width, height, channels = self._frame
        return JpegFile(
            width=width,
            height=height,
            channels=channels,
            lossless=self._kind == LOSSLESS,
            orientation=read_orientation(self._exif, self._xmp),
            stream=b"".join(
                (b"\xff\xd8", JFIF_SEGMENT if self._saw_jfif else b"", self._adobe, *self._parts, b"\xff\xd9")
            ),
        )

    def _count_equals(self) -> int:
        """Counts further pictures of the same size in a multi-picture file; smaller ones are previews of the first."""
        if self._index is None:
            return 0
        origin, index = self._index
        return sum(read_frame_size(self._data, origin + at) == self._frame[:2] for at in read_picture_offsets(index))


def read_jpeg(data: bytes, limits: ImageLimits) -> JpegFile:
    """Checks a JPEG file and takes from it what its pixels need.

    What comes behind the end marker does not count.

    Raises:
        ImageError: as ``server.images.preprocess.decode_image``.
    """
    walk = JpegWalk(data, limits)
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = MARKER.match(data, position)
        if found is None:
            raise image_file.truncated_image() if data[position:].strip(b"\xff") == b"" else walk._broken()
        marker, position = found[1][0], found.end()
        if marker == EOI:
            return walk.finish()
        if position + 2 > len(data):
            raise image_file.truncated_image()
        end = position + struct.unpack_from(">H", data, position)[0]
        if end < position + 2:
            raise walk._broken()
        if end > len(data):
            raise image_file.truncated_image()
        position = walk.add(marker, position + 2, end)
    raise image_file.overcrowded_image(f"more than {MAX_SEGMENTS:,} segments")


def read_frame_size(data: bytes, position: int) -> tuple[int, int] | None:
    """Returns width and height of a picture within a file, by the first frame header of its first 100 segments."""
    if data[position : position + 2] != b"\xff\xd8":
        return None
    position += 2
    for _ in range(100):
        found = MARKER.match(data, position)
        if found is None or found.end() + 7 > len(data):
            return None
        length, _, height, width = struct.unpack_from(">HBHH", data, found.end())
        if found[1][0] in (BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS):
            return width, height
        position = found.end() + length
    return None


def decode_jpeg(jpeg: JpegFile, mode: str, side: int) -> Image.Image:
    """Returns the pixels of a JPEG file, shrunk by 2, 4 or 8 as long as neither side gets below ``side``.

    Args:
        jpeg: the file.
        mode: ``L`` or ``RGB``; brightness alone costs less than all colours.
        side: 0 for no shrinking.

    Raises:
        ImageError: IMAGE_TRUNCATED where coded data end too early, IMAGE_DAMAGED where they make no sense,
            IMAGE_UNDECODABLE where they are of a kind that libjpeg-turbo does not decode.
    """
    # A lossless frame has neither blocks to shrink nor a way from colours to brightness.
    by = 1 if jpeg.lossless or not side else find_shrinking(jpeg.width, jpeg.height, side)
    coded_mode = "L" if jpeg.channels == 1 else "RGB"
    decoded_mode = coded_mode if jpeg.lossless else mode
    try:
        array = simplejpeg.decode_jpeg(
            jpeg.stream,
            "GRAY" if decoded_mode == "L" else "RGB",
            min_height=-(-jpeg.height // by),
            min_width=-(-jpeg.width // by),
            min_factor=NO_SHRINKING if by == 1 else 1.0,
        )
    except (ValueError, RuntimeError) as error:
        raise translate(str(error).lower()) from None
    height, width = array.shape[:2]
    image = Image.frombuffer(decoded_mode, (width, height), array, "raw", decoded_mode, 0, 1)
    return image if decoded_mode == mode else image.convert(mode)


def find_shrinking(width: int, height: int, side: int) -> int:
    """Returns the largest of 8, 4, 2, 1 by which an image can shrink without a side below ``side``."""
    scale = min(width, height) // side
    return next((by for by in (8, 4, 2) if scale >= by), 1)


def translate(text: str) -> ImageError | MemoryError:
    """What libjpeg-turbo says, as one of our errors: it has no codes, so its English counts."""
    if any(word in text for word in MEMORY_WORDS):
        return MemoryError()
    if "premature end" in text:
        return image_file.truncated_image()
    if any(word in text for word in UNSUPPORTED_WORDS):
        return image_file.unsupported_image("a JPEG of a rare kind")
    return image_file.damaged_image()
