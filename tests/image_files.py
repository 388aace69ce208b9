"""Image files made piece by piece, so that a test can put in, leave out and damage any piece."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def split_png(data: bytes) -> list[tuple[bytes, bytes]]:
    """Returns name and body of each chunk."""
    chunks, position = [], len(PNG_SIGNATURE)
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


def join_png(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The reverse of ``split_png``, with right checksums."""
    return PNG_SIGNATURE + b"".join(chunk(name, body) for name, body in chunks)


def insert_chunks(png: bytes, chunks: bytes) -> bytes:
    """Puts chunks behind the header."""
    return png[:33] + chunks + png[33:]


def header_chunk(width: int, height: int, colour: int, bits: int = 8, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))


def png_of_stream(width: int, height: int, colour: int, stream: bytes, *, bits: int = 8, colours: bytes = b"") -> bytes:
    """A PNG whose zlib stream is given, with other chunks before it."""
    header = header_chunk(width, height, colour, bits)
    return PNG_SIGNATURE + header + colours + chunk(b"IDAT", stream) + chunk(b"IEND")


def repeated_row_png(width: int, height: int, colour: int, row: bytes, *, bits: int = 8, colours: bytes = b"") -> bytes:
    """A large PNG made fast: every row has these bytes, its filter first."""
    deflate = zlib.compressobj(9)
    stream = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    return png_of_stream(width, height, colour, stream, bits=bits, colours=colours)


def rows_of(array: np.ndarray) -> bytes:
    """The rows of uint8 [H, W] or [H, W, C], unfiltered."""
    rows = array.reshape(len(array), -1)
    return np.hstack((np.zeros((len(rows), 1), np.uint8), rows)).tobytes()


def interlaced_png(array: np.ndarray, extra: bytes = b"", missing: int = 0) -> bytes:
    """An interlaced PNG, with bytes too many or too few."""
    height, width = array.shape[:2]
    passes = (array[row::down, column::across] for column, row, across, down in ADAM7)
    raw = b"".join(rows_of(part) for part in passes if part.size) + extra
    colour = COLOURS[array.shape[2] if array.ndim == 3 else 1]
    stream = zlib.compress(raw[: len(raw) - missing], 1)
    return PNG_SIGNATURE + header_chunk(width, height, colour, interlace=1) + chunk(b"IDAT", stream) + chunk(b"IEND")


def segment(marker: int, body: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def insert_segments(jpeg: bytes, segments: bytes) -> bytes:
    """Puts segments behind the start marker."""
    return jpeg[:2] + segments + jpeg[2:]


def fill(jpeg: bytes, unit: bytes, size: int) -> bytes:
    """Repeats a piece behind the start marker until the file has nearly ``size`` bytes."""
    return insert_segments(jpeg, unit * ((size - len(jpeg)) // len(unit)))


def split_jpeg(data: bytes) -> list[tuple[int, bytes]]:
    """Returns marker and bytes of each piece between start and end marker; a scan's coded data belong to it."""
    pieces, position = [], 2
    while data[position + 1] != 0xD9:
        marker, start = data[position + 1], position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:
            while data[position] != 0xFF or data[position + 1] in (0, *range(0xD0, 0xD8)):
                position += 1
        pieces.append((marker, data[start:position]))
    return pieces


def join_jpeg(pieces: Iterable[tuple[int, bytes]]) -> bytes:
    return b"\xff\xd8" + b"".join(piece for _, piece in pieces) + b"\xff\xd9"


def exif_block(orientation: int, order: str = ">") -> bytes:
    """A TIFF directory that holds an orientation and nothing else."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    return mark + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def lossless_jpeg(array: np.ndarray) -> bytes:
    """A lossless JPEG (SOF3) of uint8 [H, W] or [H, W, 3]: each sample less its left, the first of a row its upper."""
    values = array.astype(int).reshape(*array.shape[:2], -1)
    guess = np.roll(values, 1, axis=1)
    guess[1:, 0], guess[0, 0] = values[:-1, 0], 128
    words = []
    for value in (values - guess).ravel().tolist():
        size = abs(value).bit_length()
        words.append(
            format(size, "05b") + (format(value if value > 0 else value + (1 << size) - 1, f"0{size}b") if size else "")
        )
    bits = "".join(words)
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width, channels = values.shape
    frame = struct.pack(">BHHB", 8, height, width, channels)
    frame += b"".join(bytes((number, 0x11, 0)) for number in range(1, channels + 1))
    scan = bytes((channels, *(part for number in range(1, channels + 1) for part in (number, 0)), 1, 0, 0))
    table = segment(0xC4, bytes((0, 0, 0, 0, 0, 17, *[0] * 11, *range(17))))
    return b"\xff\xd8" + table + segment(0xC3, frame) + segment(0xDA, scan) + coded + b"\xff\xd9"


def progressive_bomb(width: int, height: int, refinements: int, components: int = 1) -> bytes:
    """A progressive JPEG of few bytes whose every pass goes over all blocks and finds nothing."""
    blocks = -(-width // 8) * -(-height // 8)
    runs = [max(0, min(blocks - start, 32767) - 16384) for start in range(0, blocks, 32767)]
    bits = "".join("0000" + format(run, "014b") for run in runs)
    bits += "1" * (-len(bits) % 8)
    empty = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    counts = bytes((0, 0, 0, 1, *[0] * 12))
    numbers = range(1, components + 1)
    frame = struct.pack(">BHHB", 8, height, width, components) + b"".join(bytes((n, 0x11, 0)) for n in numbers)
    data = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, frame)
    data += segment(0xC4, b"\0" + counts + b"\0") + segment(0xC4, b"\x10" + counts + b"\xe0")
    data += segment(0xDA, bytes((components, *(part for n in numbers for part in (n, 0)), 0, 0, 0)))
    data += bytes(-(-4 * blocks * components // 8))
    for number in numbers:
        data += segment(0xDA, bytes((1, number, 0, 1, 63, refinements))) + empty
        for low in range(refinements - 1, -1, -1):
            data += segment(0xDA, bytes((1, number, 0, 1, 63, (low + 1) << 4 | low))) + empty
    return data + b"\xff\xd9"
