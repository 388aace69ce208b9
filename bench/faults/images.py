"""Images that should not be: damaged ones, and ones that take long to read."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bench.faults.golden import encode

MOST_BYTES = 8 * 1024 * 1024
"""The server's default for the largest image."""


def damage(source: random.Random, images: Sequence[bytes]) -> bytes:
    """An image with something wrong: flipped bits, cut off, two put together, a length that lies, or none at all."""
    data = bytearray(source.choice(images))
    match source.randrange(7):
        case 0:
            for _ in range(source.choice((1, 1, 2, 8, 64))):
                data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        case 1:
            del data[source.randrange(len(data)) :]
        case 2:
            other = source.choice(images)
            data[source.randrange(len(data)) :] = other[source.randrange(len(other)) :]
        case 3:
            start = source.randrange(min(64, len(data)))
            data[start : start + 4] = struct.pack(">I", source.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)))
        case 4:
            start = source.randrange(len(data))
            del data[start : start + source.randrange(1, 2000)]
        case 5:
            start = source.randrange(len(data))
            data[start:start] = source.randbytes(source.randrange(1, 2000))
        case _:
            head = source.choice((b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"DICM"))
            return head + source.randbytes(source.randrange(5000))
    return bytes(data)


def chunk(name: bytes, body: bytes = b"") -> bytes:
    """A piece of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def segment(marker: int, body: bytes = b"") -> bytes:
    """A piece of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def make_slow_images(most_bytes: int = MOST_BYTES) -> dict[str, bytes]:
    """Images of at most so many bytes that make a reader work, by what they are made of."""
    pixels = np.random.RandomState(0).randint(0, 255, (256, 256)).astype(np.uint8)
    jpeg = encode(Image.fromarray(pixels), "JPEG", quality=90)
    png = encode(Image.fromarray(pixels), "PNG")
    profile = b"ICC_PROFILE\0\1\1" + bytes(30)
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000), 9))

    def fill_jpeg(unit: bytes) -> bytes:
        return jpeg[:2] + unit * ((most_bytes - len(jpeg)) // len(unit)) + jpeg[2:]

    def fill_png(unit: bytes) -> bytes:
        return png[:33] + unit * ((most_bytes - len(png)) // len(unit)) + png[33:]

    large = np.random.RandomState(1).randint(0, 255, (1500, 1500)).astype(np.uint8)
    return {
        "APP1": fill_jpeg(segment(0xE1, b"Exif\0\0" + bytes(20))),
        "APP2 iCCP": fill_jpeg(segment(0xE2, profile)),
        "COM": fill_jpeg(segment(0xFE)),
        "fill bytes": fill_jpeg(b"\xff"),
        "tEXt": fill_png(chunk(b"tEXt", b"a\0b")),
        "zTXt": fill_png(text),
        "PNG iCCP": fill_png(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100_000), 9))),
        "empty IDAT": png[:33] + chunk(b"IDAT") * ((most_bytes - len(png)) // 12) + png[33:],
        "progressive passes": make_progressive_bomb(8000, 3000, 13)[:most_bytes],
        "progressive": encode(Image.fromarray(large), "JPEG", quality=95, progressive=True),
        "PNG bomb": make_png_bomb(5000, 5000),
    }


def make_png_bomb(width: int, height: int) -> bytes:
    """A grey PNG of few bytes that is black and as large as an image may be."""
    deflate = zlib.compressobj(9)
    row = bytes(width + 1)
    stream = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", stream) + chunk(b"IEND")


def make_progressive_bomb(width: int, height: int, refinements: int) -> bytes:
    """A progressive JPEG whose every pass goes over all blocks and finds nothing (ITU-T T.81, G.1.2)."""
    blocks = -(-width // 8) * -(-height // 8)
    runs = [max(0, min(blocks - start, 32767) - 16384) for start in range(0, blocks, 32767)]
    bits = "".join("0000" + format(run, "014b") for run in runs)
    bits += "1" * (-len(bits) % 8)
    empty = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    counts = bytes((0, 0, 0, 1, *[0] * 12))
    data = io.BytesIO()
    data.write(b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64))
    data.write(segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + bytes((1, 0x11, 0))))
    data.write(segment(0xC4, b"\0" + counts + b"\0") + segment(0xC4, b"\x10" + counts + b"\xe0"))
    data.write(segment(0xDA, bytes((1, 1, 0, 0, 0, 0))) + bytes(-(-4 * blocks // 8)))
    data.write(segment(0xDA, bytes((1, 1, 0, 1, 63, refinements))) + empty)
    for low in range(refinements - 1, -1, -1):
        data.write(segment(0xDA, bytes((1, 1, 0, 1, 63, (low + 1) << 4 | low))) + empty)
    return data.getvalue() + b"\xff\xd9"
