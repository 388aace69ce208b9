"""What is made of a PNG whose pieces are damaged, missing, too many, or of no use."""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from server.errors import ImageError
from server.images.image_file import DEFAULT_LIMITS
from server.images.png_file import MAX_CHUNKS
from server.images.preprocess import InputFormat, load_pixels
from tests.fakes import ROOT, encode, make_slice
from tests.image_files import (
    PNG_SIGNATURE,
    chunk,
    exif_block,
    header_chunk,
    insert_chunks,
    interlaced_png,
    join_png,
    png_of_stream,
    repeated_row_png,
    rows_of,
    split_png,
)

SIDE = 96
GREY = make_slice(side=SIDE)
RGB = np.stack((GREY, GREY.T, 255 - GREY), axis=-1)
EXACT = InputFormat(SIDE, SIDE)
PNG = encode(GREY)
CASES = ROOT.parent / "shared" / "cases"
DAMAGE = ("IMAGE_DAMAGED", "IMAGE_TRUNCATED", "IMAGE_UNDECODABLE")
LONGEST = 2.0
"""Seconds of processor time that no bytes may hold a worker for."""


def refuse(data: bytes, input_format: InputFormat = EXACT) -> str:
    """Returns the reason of the refusal, or 'judged'."""
    try:
        load_pixels(data, input_format)
    except ImageError as error:
        return error.reason
    return "judged"


def in_parts(parts: int) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG whose pixels are in several."""
    stream = zlib.compress(rows_of(GREY))
    step = -(-len(stream) // parts)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    bodies = [stream[start : start + step] for start in range(0, len(stream), step)]
    return [(b"IHDR", header), *((b"IDAT", body) for body in bodies), (b"IEND", b"")]


# --- damage ----------------------------------------------------------------------------------------------------------


def test_no_flipped_bit_is_judged_with_other_pixels() -> None:
    """Whichever bit of a sample changes, the image is refused, and called damaged or cut."""
    rng = random.Random(11)
    for path in sorted((ROOT / "samples").glob("*.png")):
        original = path.read_bytes()
        for _ in range(300):
            data = bytearray(original)
            bit = rng.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8

            assert refuse(bytes(data)) in DAMAGE


@pytest.mark.parametrize("flag", [0x20, 0x01])
def test_changed_name_of_a_chunk_is_noticed(flag: int) -> None:
    """Also where it makes a chunk of pixels or of transparency one that would be left out."""
    transparent = insert_chunks(PNG, chunk(b"tRNS", b"\0\0"))
    for name in (b"IHDR", b"tRNS", b"IDAT", b"IEND"):
        data = bytearray(transparent)
        data[data.index(name)] ^= flag

        assert refuse(bytes(data)) in DAMAGE


@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_missing_part_of_the_pixels_is_noticed(part: int) -> None:
    """A chunk that was lost takes its checksum with it; the rows that it held are missed."""
    chunks = in_parts(4)
    del chunks[part]

    assert refuse(join_png(chunks)) in DAMAGE


@pytest.mark.parametrize("part", [1, 2, 3])
def test_part_that_comes_twice_is_noticed(part: int) -> None:
    """Only the last may: what stands behind the stream's end is of no matter to its pixels."""
    chunks = in_parts(4)
    chunks.insert(part, chunks[part])

    assert refuse(join_png(chunks)) in DAMAGE


def test_parts_that_changed_places_are_noticed() -> None:
    """Each has its right checksum; the stream has not."""
    for first in range(1, 4):
        chunks = in_parts(4)
        chunks[first], chunks[first + 1] = chunks[first + 1], chunks[first]

        assert refuse(join_png(chunks)) in DAMAGE


def test_pixels_stand_together_and_behind_their_colours() -> None:
    """What came between them, or a palette or transparency behind them, was not there when the file was written."""
    header, *parts, end = in_parts(2)

    assert refuse(join_png([header, parts[0], (b"tEXt", b"a\0b"), parts[1], end])) == "IMAGE_DAMAGED"
    assert refuse(join_png([header, *parts, (b"tRNS", b"\0\0"), end])) == "IMAGE_DAMAGED"
    assert refuse(join_png([header, (b"tRNS", b"\0\0"), (b"tRNS", b"\0\0"), *parts, end])) == "IMAGE_DAMAGED"
    assert refuse(join_png([header, *parts, end])) == "judged"


ROWS = rows_of(GREY)
STREAMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "whole": (lambda: zlib.compress(ROWS), "judged"),
    "ends after half the rows": (lambda: zlib.compress(ROWS[: len(ROWS) // 2]), "IMAGE_TRUNCATED"),
    "ends a row early": (lambda: zlib.compress(ROWS[: -SIDE - 1]), "IMAGE_TRUNCATED"),
    "ends a byte early": (lambda: zlib.compress(ROWS[:-1]), "IMAGE_TRUNCATED"),
    "has a row too many": (lambda: zlib.compress(ROWS + ROWS[: SIDE + 1]), "IMAGE_DAMAGED"),
    "has a hundred rows too many": (lambda: zlib.compress(ROWS * 3), "IMAGE_DAMAGED"),
    "has no checksum": (lambda: zlib.compress(ROWS)[:-4], "IMAGE_TRUNCATED"),
    "has a wrong checksum": (lambda: zlib.compress(ROWS)[:-1] + b"\0", "IMAGE_DAMAGED"),
    "is empty": (lambda: b"", "IMAGE_TRUNCATED"),
    "has an unknown filter": (lambda: zlib.compress(b"\5" + ROWS[1:]), "IMAGE_DAMAGED"),
    "is no zlib stream": (lambda: b"\0" * 500, "IMAGE_DAMAGED"),
    "is stored": (lambda: zlib.compress(ROWS, 0), "judged"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_all_rows_and_no_more_have_to_come(name: str) -> None:
    """A stream whose chunks are whole can still be another image's, or half of one."""
    make, outcome = STREAMS[name]

    assert refuse(png_of_stream(SIDE, SIDE, 0, make())) == outcome


def test_file_cut_anywhere_and_closed_is_refused() -> None:
    """An end chunk behind the cut does not make it whole."""
    data = encode(RGB)

    for length in range(8, len(data) - 12, 41):
        assert refuse(data[:length] + chunk(b"IEND")) in DAMAGE


@pytest.mark.parametrize("kind", ["removed", "doubled", "zeroed"])
def test_damage_inside_is_noticed(kind: str) -> None:
    """Bytes that were lost, written twice or emptied."""
    rng, data = random.Random(5), encode(RGB)
    for _ in range(200):
        start = rng.randrange(8, len(data) - 60)
        end = start + rng.randint(1, 40)
        piece = {"removed": b"", "doubled": 2 * data[start:end], "zeroed": bytes(end - start)}[kind]

        assert refuse(data[:start] + piece + data[end:]) in DAMAGE


def test_unknown_critical_chunk_is_refused_and_unknown_ancillary_is_not() -> None:
    """A capital letter says that the image cannot be understood without the chunk."""
    assert refuse(insert_chunks(PNG, chunk(b"QQqq", b"x"))) == "IMAGE_DAMAGED"
    assert refuse(insert_chunks(PNG, chunk(b"qqqq", b"x"))) == "judged"


def test_palette_that_is_missing_or_odd_is_refused() -> None:
    """Indices without colours are no image."""
    stream = zlib.compress(rows_of(GREY))

    for colours in (b"", chunk(b"PLTE"), chunk(b"PLTE", bytes(767)), chunk(b"PLTE", bytes(771))):
        assert refuse(png_of_stream(SIDE, SIDE, 3, stream, colours=colours)) == "IMAGE_DAMAGED"


# --- interlaced ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", [GREY, RGB, GREY[:33, :34], GREY[:37, :90]], ids=["grey", "rgb", "33x34", "37x90"])
def test_interlaced_image_is_judged_exactly(array: np.ndarray) -> None:
    """The order of rows in a file is no matter of its pixels."""
    wanted = InputFormat(*array.shape[:2])

    pixels = load_pixels(interlaced_png(array), wanted).array

    assert np.array_equal(pixels, array if array.ndim == 3 else np.repeat(array[:, :, np.newaxis], 3, axis=2))


def test_interlaced_image_has_all_rows_and_no_more() -> None:
    """As any other."""
    assert refuse(interlaced_png(GREY, missing=1)) == "IMAGE_TRUNCATED"
    assert refuse(interlaced_png(GREY, missing=SIDE * SIDE // 2)) == "IMAGE_TRUNCATED"
    assert refuse(interlaced_png(GREY, extra=b"\0")) == "IMAGE_DAMAGED"
    assert refuse(interlaced_png(GREY, extra=bytes(10_000_000))) == "IMAGE_DAMAGED"
    damaged = bytearray(interlaced_png(GREY))
    damaged[-17:-16] = bytes((damaged[-17] ^ 1,))
    assert refuse(bytes(damaged)) == "IMAGE_DAMAGED"


# --- what pixels do not need -----------------------------------------------------------------------------------------


def test_metadata_of_any_size_and_kind_change_nothing() -> None:
    """A profile that inflates to megabytes, broken text, thousands of notes: the pixels are the same."""
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3_000_000)))
    text = chunk(b"zTXt", b"x\0\0" + b"no zlib stream") + chunk(b"tEXt") + chunk(b"tEXt", b"note\0harmless") * 3000
    data = insert_chunks(PNG, profile + text + chunk(b"gAMA", b"\0\0\0\0") + chunk(b"sBIT", b"\x11" * 9))

    assert np.array_equal(load_pixels(data, EXACT).array, load_pixels(PNG, EXACT).array)


@pytest.mark.parametrize("gamma", [22_222, 45_455, 100_000, 250_000])
def test_gamma_changes_no_pixel(gamma: int) -> None:
    """CT values are no light: what displays do about it is theirs (gAMA, 11.3.2.2)."""
    data = insert_chunks(PNG, chunk(b"gAMA", struct.pack(">I", gamma)))

    assert np.array_equal(load_pixels(data, EXACT).array, load_pixels(PNG, EXACT).array)


@pytest.mark.parametrize("is_frame", [True, False], ids=["its only frame", "no frame"])
def test_animation_of_one_frame_is_one_image(is_frame: bool) -> None:
    """As converters write them (acTL says 1); the image that all viewers show is judged."""
    control = struct.pack(">IIIIIHHBB", 0, SIDE, SIDE, 0, 0, 1, 10, 0, 0)
    animation = chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", control) * is_frame
    data = insert_chunks(PNG, animation)

    assert np.array_equal(load_pixels(data, EXACT).array, load_pixels(PNG, EXACT).array)


def test_slice_with_a_large_profile_is_judged() -> None:
    """Its profile inflates to 1.1 MB."""
    path = CASES / "icc_1.1MB.png"
    if not path.exists():
        pytest.skip(f"{path} is not there")

    data = path.read_bytes()

    plain = join_png((name, body) for name, body in split_png(data) if name != b"iCCP")
    assert np.array_equal(load_pixels(data, EXACT).array, load_pixels(plain, EXACT).array)


def test_bytes_behind_the_end_change_nothing() -> None:
    """Not even another image."""
    assert np.array_equal(load_pixels(PNG + encode(RGB), EXACT).array, load_pixels(PNG, EXACT).array)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("order", [">", "<"])
def test_orientation_is_read_before_and_behind_the_pixels(prefix: bytes, order: str) -> None:
    """The specification allows both places, and writers two byte orders."""
    exif = chunk(b"eXIf", prefix + exif_block(3, order))

    for data in (insert_chunks(PNG, exif), PNG[:-12] + exif + PNG[-12:]):
        pixels = load_pixels(data, EXACT)
        assert np.array_equal(pixels.array[:, :, 0], GREY[::-1, ::-1])
        assert [warning.reason for warning in pixels.warnings] == ["IMAGE_ROTATED"]


def test_one_transparent_colour_is_black() -> None:
    """A grey level or a colour can stand for what is not there."""
    grey = load_pixels(insert_chunks(PNG, chunk(b"tRNS", b"\0" + bytes((int(GREY[0, 0]),)))), EXACT)
    colour = load_pixels(insert_chunks(encode(RGB), chunk(b"tRNS", struct.pack(">3H", *RGB[0, 0]))), EXACT)

    assert np.array_equal(grey.array[:, :, 0], np.where(GREY[0, 0] == GREY, 0, GREY))
    assert np.array_equal(colour.array, np.where((RGB[0, 0] == RGB).all(axis=2, keepdims=True), 0, RGB))


# --- time ------------------------------------------------------------------------------------------------------------

LIMIT = DEFAULT_LIMITS.max_bytes
STREAM = zlib.compress(ROWS)


def crowded(name: bytes, body: bytes, size: int = LIMIT) -> bytes:
    """A PNG filled up with one chunk, before its pixels."""
    return insert_chunks(PNG, chunk(name, body) * ((size - len(PNG)) // (12 + len(body))))


def noisy_row(channels: int) -> bytes:
    return b"\4" + np.random.default_rng(0).integers(0, 256, 5000 * channels, dtype=np.uint8).tobytes()


SLOW: dict[str, Callable[[], bytes]] = {
    "profiles that inflate": lambda: crowded(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 20))),
    "empty texts": lambda: crowded(b"tEXt", b""),
    "empty chunks of pixels": lambda: PNG_SIGNATURE + header_chunk(SIDE, SIDE, 0) + chunk(b"IDAT") * 600_000,
    "giant Exif": lambda: insert_chunks(PNG, chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + bytes(8_000_000))),
    "giant transparency": lambda: insert_chunks(PNG, chunk(b"tRNS", bytes(8_000_000))),
    "empty blocks": lambda: png_of_stream(SIDE, SIDE, 0, b"\x78\1" + b"\0\0\0\xff\xff" * 1_600_000 + STREAM[2:]),
    "a stream far too long": lambda: png_of_stream(SIDE, SIDE, 0, zlib.compress(bytes(1_000_000_000), 1)),
    "interlaced, a stream far too long": lambda: interlaced_png(GREY, extra=bytes(300_000_000)),
    "25 megapixels, grey": lambda: repeated_row_png(5000, 5000, 0, noisy_row(1)),
    "25 megapixels, colour": lambda: repeated_row_png(5000, 5000, 2, noisy_row(3)),
    "25 megapixels, grey and alpha": lambda: repeated_row_png(5000, 5000, 4, noisy_row(2)),
    "25 megapixels, alpha, turned": lambda: insert_chunks(
        repeated_row_png(5000, 5000, 6, noisy_row(4)), chunk(b"eXIf", exif_block(5))
    ),
    "25 megapixels, palette with alpha": lambda: repeated_row_png(
        5000, 5000, 3, noisy_row(1), colours=chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"tRNS", bytes(range(256)))
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_no_png_holds_a_worker(name: str) -> None:
    """Hostile or just large: it is answered or refused in the time promised."""
    data = SLOW[name]()
    assert len(data) <= LIMIT
    started = time.thread_time()

    refuse(data, InputFormat(256, 256, "rgb", "lanczos", "pad"))

    assert time.thread_time() - started < LONGEST


def test_chunks_are_bounded_in_number() -> None:
    """So many that no writer makes them: refused; nearly as many: judged."""
    assert refuse(insert_chunks(PNG, chunk(b"tEXt", b"a\0b") * MAX_CHUNKS)) == "IMAGE_UNDECODABLE"
    assert refuse(insert_chunks(PNG, chunk(b"tEXt", b"a\0b") * (MAX_CHUNKS - 3))) == "judged"
