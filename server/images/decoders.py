"""From checked files to pixels: PNG by Pillow, JPEG by libjpeg-turbo through simplejpeg, losing no complaint of either.

Pillow drops what libjpeg warns of, such as data that end too early, and leaves rows black that a PNG never sent. Here
both are errors. An error of ours (no memory, a mistake) is never taken for one of the image: only what the decoders
raise for bytes is translated.
"""

from __future__ import annotations

import os
import zlib

import simplejpeg
from PIL import Image, ImageChops

from server.errors import ImageError
from server.images.image_file import damaged_image, truncated_image, unsupported_image
from server.images.jpeg_file import JpegFile
from server.images.png_file import CHANNELS, GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, PngFile

PNG_MODES = {GREY: "L", RGB: "RGB", PALETTE: "P", GREY_ALPHA: "LA", RGB_ALPHA: "RGBA"}
MARK_PIXELS = 32
INFLATE_STEP = 1 << 16
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps, of an interlaced PNG's seven passes (PNG specification, 8.1)."""

NO_SHRINKING = 99.0
"""simplejpeg shrinks only if it gains at least this factor; it offers no more than 8."""

UNSUPPORTED_WORDS = ("not implemented", "unsupported", "not supported", "cannot handle")
MEMORY_WORDS = ("memory", "could not create")


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
        raise truncated_image()
    if changed[3] == 2:
        raise damaged_image()
    return image.crop((0, 0, width, height))


def fill_png(image: Image.Image, png: PngFile) -> None:
    """Decodes a PNG's stream into an image, as far as it goes."""
    raw_mode = f"P;{png.bits}" if png.bits < 8 else image.mode
    try:
        image.frombytes(png.stream, "zip", raw_mode, int(png.interlaced))
    except ValueError as error:
        raise (truncated_image() if "not enough" in str(error) else damaged_image()) from None


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
        raise damaged_image() from None
    if missing < 0:
        raise damaged_image()
    if missing or not inflate.eof:
        raise truncated_image()


def read_transparency(png: PngFile) -> bytes | int | tuple[int, ...]:
    """Returns tRNS as Pillow has it: a palette's alpha values, or the one transparent colour."""
    if png.colour == PALETTE:
        return png.transparency
    values = tuple(png.transparency[1 : 2 * CHANNELS[png.colour] : 2])  # 8 of 16 bits count
    return values if png.colour == RGB else values[0]


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
        return truncated_image()
    if any(word in text for word in UNSUPPORTED_WORDS):
        return unsupported_image("a JPEG of a rare kind")
    return damaged_image()
