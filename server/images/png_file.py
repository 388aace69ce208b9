"""A PNG file: its chunks are walked once and checked, and what its pixels need is taken from them and decoded.

The decoder, Pillow's, sees nothing else. Text, colour profiles, times and the like neither cost time nor can break
anything, whatever is in them, and they may be as long as the file may be.

Every chunk's CRC counts, also of those that are left out: a flipped bit in the name of a chunk of pixels or of
transparency makes it one to leave out. Pillow leaves rows black that a file never sent; here they are an error. A
failure of ours (no memory, a mistake) is never taken for one of the image: only what the decoder raises for bytes is
translated. References are to the PNG specification, third edition.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass

from PIL import Image, ImageChops

from server.images import image_file
from server.images.exif import MAX_XMP_BYTES, read_orientation
from server.images.image_file import ImageLimits

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 50_000
"""A file of 8 MiB in chunks of 8 kB, as libpng writes them, has 1,000; one chunk a row of pixels makes 8,192."""

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}

PNG_MODES = {GREY: "L", RGB: "RGB", PALETTE: "P", GREY_ALPHA: "LA", RGB_ALPHA: "RGBA"}
"""Pillow's name of each."""

MARK_PIXELS = 32
INFLATE_STEP = 1 << 16
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps, of an interlaced PNG's seven passes (8.1)."""

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
            raise image_file.undecodable_image()
        elif name == b"IDAT":
            if self._parts and self._last_name != b"IDAT":
                # They stand together (5.6): something came between, or they changed places.
                raise image_file.damaged_image()
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
            raise image_file.damaged_image()  # critical, by its capital letter (5.4), and unknown: not to be guessed at
        self._last_name = name

    def _add_header(self, body: memoryview) -> None:
        if len(body) != 13:
            raise image_file.undecodable_image()
        width, height, bits, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
        if bits == 16:
            # Also behind a first header of 8: no decoder shall come to think otherwise.
            raise image_file.deep_image(bits)
        if self._header is not None:
            raise image_file.damaged_image()
        if not width or not height or bits not in DEPTHS.get(colour, ()) or (compression, filtering) != (0, 0):
            raise image_file.undecodable_image()
        if interlace > 1:
            raise image_file.undecodable_image()
        if bits < 8 and colour != PALETTE:
            raise image_file.shallow_image(bits)
        image_file.check_dimensions(width, height, self._limits)
        self._header = width, height, bits, colour, interlace

    def _add_colours(self, name: bytes, body: memoryview) -> None:
        if self._parts or (self._palette if name == b"PLTE" else self._transparency):
            raise image_file.damaged_image()  # both come once, and before the pixels
        if name == b"tRNS":
            self._transparency = bytes(body[:256])
        elif len(body) % 3 or not 0 < len(body) <= 768:
            raise image_file.damaged_image()
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
            raise image_file.undecodable_image()
        if not self._parts:
            raise image_file.truncated_image()
        frames = self._frames + (self._has_other_frames and not self._default_is_frame)
        image_file.check_frames(frames if self._has_other_frames or frames > 1 else 1)
        width, height, bits, colour, interlace = self._header
        if colour == PALETTE and not self._palette:
            raise image_file.damaged_image()
        wanted = {GREY: 2, RGB: 6, PALETTE: 1}.get(colour, 0)
        if self._transparency and len(self._transparency) < wanted:
            raise image_file.damaged_image()
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
            raise image_file.truncated_image()
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise image_file.damaged_image() if length >= 2**31 else image_file.truncated_image()
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise image_file.damaged_image()
        if name == b"IEND":
            return walk.finish()
        walk.add(name, view[position + 8 : end - 4])
        position = end
    raise image_file.overcrowded_image(f"more than {MAX_CHUNKS:,} chunks")


def decode_png(png: PngFile) -> Image.Image:
    """Returns the pixels of a PNG file, with palette and transparency as Pillow has them.

    Raises:
        ImageError: IMAGE_TRUNCATED where rows are missing, IMAGE_DAMAGED where there are too many, or the stream's
            checksum or coding is wrong.
    """
    mode = PNG_MODES[png.colour]
    if png.interlaced:
        check_interlaced_stream(png)
        image = Image.new(mode, (png.width, png.height))
        fill_png(image, png)
    else:
        image = decode_rows(png, mode)
    if png.colour == PALETTE:
        image.putpalette(png.palette)
    if png.transparency:
        image.info["transparency"] = read_transparency(png)
    return image


def decode_rows(png: PngFile, mode: str) -> Image.Image:
    """Decodes as if there were a row more, and returns the rest if exactly that row is missing.

    Pillow says neither how many rows came nor whether the stream had ended. With room for one row more, zlib reads on
    to the stream's end and compares its checksum. Whether the last row came and the next did not is seen from random
    values put there before. This costs microseconds; inflating twice would cost half a decode.
    """
    width, height = png.width, png.height
    image = Image.new(mode, (width, height + 1))
    across = min(width, MARK_PIXELS)
    marks = Image.frombytes(mode, (across, 2), os.urandom(2 * across * CHANNELS[png.colour]))
    image.paste(marks, (0, height - 1))
    fill_png(image, png)
    changed = ImageChops.difference(image.crop((0, height - 1, across, height + 1)), marks).getbbox(alpha_only=False)
    if changed is None or changed[1] == 1:
        raise image_file.truncated_image()
    if changed[3] == 2:
        raise image_file.damaged_image()
    return image.crop((0, 0, width, height))


def fill_png(image: Image.Image, png: PngFile) -> None:
    """Decodes a PNG's stream into an image, as far as it goes."""
    raw_mode = f"P;{png.bits}" if png.bits < 8 else image.mode
    try:
        image.frombytes(png.stream, "zip", raw_mode, int(png.interlaced))
    except ValueError as error:
        raise (image_file.truncated_image() if "not enough" in str(error) else image_file.damaged_image()) from None


def check_interlaced_stream(png: PngFile) -> None:
    """Inflates the stream of an interlaced PNG once more, in small steps, to see that it has all rows and no more.

    The rare kind of file pays for it: Pillow cannot be given a row more here.
    """
    missing = 0
    for column, row, across, down in ADAM7:
        columns, rows = (png.width - column + across - 1) // across, (png.height - row + down - 1) // down
        if columns > 0 and rows > 0:
            missing += rows * (1 + (columns * png.bits * CHANNELS[png.colour] + 7) // 8)
    inflate = zlib.decompressobj()
    try:
        for start in range(0, len(png.stream), INFLATE_STEP):
            piece = png.stream[start : start + INFLATE_STEP]
            while piece and missing >= 0 and not inflate.eof:
                missing -= len(inflate.decompress(piece, 16 * INFLATE_STEP))
                piece = inflate.unconsumed_tail
    except zlib.error:
        raise image_file.damaged_image() from None
    if missing < 0:
        raise image_file.damaged_image()
    if missing or not inflate.eof:
        raise image_file.truncated_image()


def read_transparency(png: PngFile) -> bytes | int | tuple[int, ...]:
    """Returns tRNS as Pillow has it: a palette's alpha values, or the one transparent colour."""
    if png.colour == PALETTE:
        return png.transparency
    values = tuple(png.transparency[1 : 2 * CHANNELS[png.colour] : 2])  # 8 of 16 bits count
    return values if png.colour == RGB else values[0]
