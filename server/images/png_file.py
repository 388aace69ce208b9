"""Walks the chunks of a PNG file once: checks them, and takes what its pixels need.

The decoder sees nothing else. Text, colour profiles, times and the like neither cost time nor can break anything,
whatever is in them, and they may be as long as the file may be.

Every chunk's CRC counts, also of those that are left out: a flipped bit in the name of a chunk of pixels or of
transparency makes it one to leave out. References are to the PNG specification, third edition.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from server.images.exif import MAX_XMP_BYTES, read_orientation
from server.images.image_file import (
    PNG_SIGNATURE,
    ImageLimits,
    check_dimensions,
    check_frames,
    damaged_image,
    deep_image,
    overcrowded_image,
    shallow_image,
    truncated_image,
    undecodable_image,
)

MAX_CHUNKS = 50_000
"""A file of 8 MiB in chunks of 8 kB, as libpng writes them, has 1,000; one chunk a row of pixels makes 8,192."""

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}

XMP_KEYWORD = b"XML:com.adobe.xmp\0"


@dataclass(frozen=True)
class PngFile:
    """What the pixels of a PNG file need. Not yet decoded."""

    width: int
    height: int
    bits: int
    colour: int
    """One of ``CHANNELS``."""

    interlaced: bool
    palette: bytes
    """RGB triples; empty unless ``colour`` is PALETTE."""

    transparency: bytes
    """As in the chunk tRNS (11.3.1.1), empty for none."""

    orientation: int
    """As in Exif: 1 to 8, where 1 is upright; any other number means nothing."""

    stream: bytes
    """The zlib stream of all rows."""


class PngWalk:
    """Collects what counts, chunk after chunk."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._header: tuple[int, ...] | None = None
        self._palette = self._transparency = self._exif = self._xmp = b""
        self._parts: list[memoryview] = []
        self._last_name = b""
        self._frames = 1
        self._default_is_frame = False
        self._has_other_frames = False

    def add(self, name: bytes, body: memoryview) -> None:
        """Takes in one chunk whose CRC was right."""
        if name == b"IHDR":
            self._add_header(body)
        elif self._header is None:
            raise undecodable_image()
        elif name == b"IDAT":
            if self._parts and self._last_name != b"IDAT":
                raise damaged_image()  # they stand together (5.6): something came between, or they changed places
            self._parts.append(body)
        elif name in (b"PLTE", b"tRNS"):
            self._add_colours(name, body)
        elif name == b"eXIf":
            self._exif = self._exif or bytes(body)
        elif name == b"iTXt":
            if not self._xmp and body[: len(XMP_KEYWORD)] == XMP_KEYWORD:
                self._xmp = bytes(body[:MAX_XMP_BYTES])
        elif name in (b"acTL", b"fcTL", b"fdAT"):
            self._add_frame(name, body)
        elif not name[0] & 0x20:
            raise damaged_image()  # critical, by its capital letter (5.4), and unknown: not to be guessed at
        self._last_name = name

    def _add_header(self, body: memoryview) -> None:
        if len(body) != 13:
            raise undecodable_image()
        width, height, bits, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
        if bits == 16:
            raise deep_image(bits)  # also behind a first header of 8: no decoder shall come to think otherwise
        if self._header is not None:
            raise damaged_image()
        if not width or not height or bits not in DEPTHS.get(colour, ()) or (compression, filtering) != (0, 0):
            raise undecodable_image()
        if interlace > 1:
            raise undecodable_image()
        if bits < 8 and colour != PALETTE:
            raise shallow_image(bits)
        check_dimensions(width, height, self._limits)
        self._header = width, height, bits, colour, interlace

    def _add_colours(self, name: bytes, body: memoryview) -> None:
        if self._parts or (self._palette if name == b"PLTE" else self._transparency):
            raise damaged_image()  # both come once, and before the pixels
        if name == b"tRNS":
            self._transparency = bytes(body[:256])
        elif len(body) % 3 or not 0 < len(body) <= 768:
            raise damaged_image()
        else:
            self._palette = bytes(body)

    def _add_frame(self, name: bytes, body: memoryview) -> None:
        """Animation control: how many frames there are, and whether the default image is one of them (11.3.6)."""
        if name == b"fdAT":
            self._has_other_frames = True
        elif not self._parts:
            if name == b"fcTL":
                self._default_is_frame = True
            elif len(body) >= 4:
                self._frames = struct.unpack_from(">I", body)[0]

    def finish(self) -> PngFile:
        """Returns what was collected, once the end chunk has come."""
        if self._header is None:
            raise undecodable_image()
        if not self._parts:
            raise truncated_image()
        frames = self._frames + (self._has_other_frames and not self._default_is_frame)
        check_frames(frames if self._has_other_frames or frames > 1 else 1)
        width, height, bits, colour, interlace = self._header
        if colour == PALETTE and not self._palette:
            raise damaged_image()
        wanted = {GREY: 2, RGB: 6, PALETTE: 1}.get(colour, 0)
        if self._transparency and len(self._transparency) < wanted:
            raise damaged_image()
        return PngFile(
            width=width,
            height=height,
            bits=bits,
            colour=colour,
            interlaced=bool(interlace),
            palette=self._palette if colour == PALETTE else b"",
            transparency=self._transparency if wanted else b"",
            orientation=read_orientation(self._exif, self._xmp),
            stream=b"".join(self._parts),
        )


def read_png(data: bytes, limits: ImageLimits) -> PngFile:
    """Checks a PNG file and takes from it what its pixels need.

    What comes behind the end chunk does not count.

    Raises:
        ImageError: as ``server.images.preprocess.decode_image``.
    """
    view, walk = memoryview(data), PngWalk(limits)
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position + 12 > len(data):
            raise truncated_image()
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise damaged_image() if length >= 2**31 else truncated_image()
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise damaged_image()
        if name == b"IEND":
            return walk.finish()
        walk.add(name, view[position + 8 : end - 4])
        position = end
    raise overcrowded_image(f"more than {MAX_CHUNKS:,} chunks")
