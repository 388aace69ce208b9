"""What is made of a JPEG that is damaged, cut, of another kind than baseline, or crowded with what no pixel needs."""

from __future__ import annotations

import io
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.errors import ImageError
from server.images.image_file import DEFAULT_LIMITS
from server.images.jpeg_file import MAX_SEGMENTS
from server.images.preprocess import InputFormat, load_pixels
from tests.fakes import ROOT, encode, make_slice
from tests.image_files import (
    exif_block,
    fill,
    insert_segments,
    join_jpeg,
    lossless_jpeg,
    progressive_bomb,
    segment,
    split_jpeg,
)

SIDE = 96
GREY = make_slice(side=SIDE)
RGB = np.stack((GREY, GREY.T, 255 - GREY), axis=-1)
EXACT = InputFormat(SIDE, SIDE)
SMALL = InputFormat(32, 32, "grey")
JPEG = encode(GREY, "JPEG")
END = b"\xff\xd9"
CASES = ROOT.parent / "shared" / "cases"
LIMIT = DEFAULT_LIMITS.max_bytes
LONGEST = 2.0
"""Seconds of processor time that no bytes may hold a worker for."""

KINDS = {
    "grey": (GREY, {}),
    "grey, restarts": (GREY, {"restart_marker_blocks": 5}),
    "grey, progressive": (GREY, {"progressive": True}),
    "colour 4:4:4": (RGB, {"subsampling": 0}),
    "colour 4:2:0": (RGB, {"subsampling": 2}),
    "colour, restarts": (RGB, {"restart_marker_blocks": 2}),
    "colour, progressive": (RGB, {"progressive": True}),
}


def refuse(data: bytes, input_format: InputFormat = EXACT) -> str:
    """Returns the reason of the refusal, or 'judged'."""
    try:
        load_pixels(data, input_format)
    except ImageError as error:
        return error.reason
    return "judged"


def message_of(data: bytes) -> str:
    with pytest.raises(ImageError) as refusal:
        load_pixels(data, EXACT)
    return refusal.value.message


def read_case(name: str) -> bytes:
    path: Path = CASES / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path.read_bytes()


def make(kind: str) -> bytes:
    array, options = KINDS[kind]
    return encode(array, "JPEG", **options)


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("input_format", [EXACT, SMALL], ids=["exact", "shrunk"])
def test_jpeg_cut_anywhere_and_closed_is_refused(kind: str, input_format: InputFormat) -> None:
    """An end marker behind the cut does not make it whole, whatever scan or restart it was cut in."""
    data = make(kind)

    for length in range(data.index(b"\xff\xda"), len(data) - 2, 29):
        assert refuse(data[:length] + END, input_format) in ("IMAGE_TRUNCATED", "IMAGE_DAMAGED")


@pytest.mark.parametrize("kind", ["grey, progressive", "colour, progressive"])
def test_no_scan_may_be_missing(kind: str) -> None:
    """Without its last scans a progressive file decodes without a complaint, blurred."""
    pieces = split_jpeg(make(kind))
    scans = [index for index, (marker, _) in enumerate(pieces) if marker == 0xDA]
    assert len(scans) > 5

    for index in scans:
        assert refuse(join_jpeg(pieces[:index])) == "IMAGE_TRUNCATED"
        assert refuse(join_jpeg(pieces[:index] + pieces[index + 1 :])) in ("IMAGE_TRUNCATED", "IMAGE_DAMAGED")
        assert refuse(join_jpeg(pieces[: index + 1] + pieces[index:])) == "IMAGE_DAMAGED"


def test_component_sent_alone_may_not_be_missing() -> None:
    """A colour image whose components have a scan each is whole with three of them."""
    pieces = split_jpeg(encode(np.full((SIDE, SIDE, 3), 128, np.uint8), "JPEG", subsampling=0, optimize=True))
    *tables, (_, scan) = pieces
    frames = [(marker, piece) for marker, piece in tables if marker == 0xC0]
    assert len(frames) == 1
    # Of a flat grey image every block is the same two codes, so one component's data serve for all.
    flat = split_jpeg(encode(np.full((SIDE, SIDE), 128, np.uint8), "JPEG", optimize=True))
    coded = flat[-1][1][10:]
    grey_tables = [piece for piece in flat if piece[0] == 0xC4]
    header = [piece for piece in pieces if piece[0] not in (0xC4, 0xDA)]
    scans = [(0xDA, segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + coded) for number in (1, 2, 3)]
    assert scan

    assert refuse(join_jpeg(header + grey_tables + scans)) == "judged"
    assert refuse(join_jpeg(header + grey_tables + scans[:2])) == "IMAGE_TRUNCATED"
    assert refuse(join_jpeg(header + grey_tables + scans[1:])) == "IMAGE_TRUNCATED"
    assert refuse(join_jpeg(header + grey_tables + scans + scans[:1])) == "IMAGE_DAMAGED"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "progressive" not in kind])
def test_bytes_lost_or_doubled_in_coded_data_are_noticed_nearly_always(kind: str) -> None:
    """JPEG has no checksum: what falls back into step, as a progressive file's last bits often do, passes."""
    rng, data = random.Random(3), make(kind)
    start, judged = data.index(b"\xff\xda") + 14, 0
    for _ in range(100):
        position = rng.randrange(start, len(data) - 80)
        length = rng.randint(20, 60)
        lost = data[:position] + data[position + length :]
        doubled = data[: position + length] + data[position:]
        judged += (refuse(lost) == "judged") + (refuse(doubled) == "judged")

    assert judged <= 30


def test_end_marker_inside_a_preview_is_not_the_end() -> None:
    """Exif holds a whole JPEG of its own, with a start, an end, and scans."""
    preview = b"Exif\0\0" + exif_block(1) + encode(GREY[:32, :32], "JPEG")
    data = insert_segments(JPEG, segment(0xE1, preview))

    assert np.array_equal(load_pixels(data, EXACT).array, load_pixels(JPEG, EXACT).array)
    assert refuse(data[: len(data) // 2]) == "IMAGE_TRUNCATED"
    assert refuse(data[:-2]) == "IMAGE_TRUNCATED"


def test_bytes_behind_the_end_change_nothing() -> None:
    """Garbage, zeros, or another JPEG."""
    expected = load_pixels(JPEG, EXACT).array

    for rest in (b"\0" * 1000, b"garbage", encode(RGB, "JPEG"), b"\xff"):
        assert np.array_equal(load_pixels(JPEG + rest, EXACT).array, expected)


def test_metadata_of_any_kind_change_nothing() -> None:
    """Profiles, comments, filling, unknown applications, odd versions: the pixels are the same."""
    expected = load_pixels(JPEG, EXACT).array
    odd_jfif = segment(0xE0, b"JFIF\0\x09\x09\0\0\1\0\1\0\0")
    crowd = b"".join(segment(0xE0 + n, b"x" * 60_000) for n in range(1, 16)) + segment(0xFE, b"a note") * 3000

    for data in (insert_segments(JPEG, crowd + odd_jfif), insert_segments(JPEG, b"\xff" * 1000)):
        assert np.array_equal(load_pixels(data, EXACT).array, expected)


def test_garbage_between_segments_is_refused() -> None:
    """Something was lost or written over there."""
    pieces = split_jpeg(JPEG)
    for index in range(1, len(pieces)):
        data = join_jpeg([*pieces[:index], (0, b"\x12\x34\x56"), *pieces[index:]])

        assert refuse(data) in ("IMAGE_DAMAGED", "IMAGE_UNDECODABLE")


# --- kinds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [256, 300, 512])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_lossless_jpeg_is_judged_exactly_at_any_size(side: int, colour: str) -> None:
    """As DICOM holds 8-bit slices; it has no blocks that could shrink."""
    array = make_slice(side=side)

    exact = load_pixels(lossless_jpeg(array), InputFormat(side, side, colour)).array
    small = load_pixels(lossless_jpeg(array), InputFormat(64, 64, colour)).array

    assert (exact == array[:, :, np.newaxis]).all()
    assert np.array_equal(small, load_pixels(encode(array), InputFormat(64, 64, colour)).array)


def test_lossless_colour_is_judged_exactly() -> None:
    """In colours, and in grey as Pillow makes it of them."""
    grey = np.asarray(Image.fromarray(RGB).convert("L"))[:, :, np.newaxis]

    assert np.array_equal(load_pixels(lossless_jpeg(RGB), EXACT).array, RGB)
    assert np.array_equal(load_pixels(lossless_jpeg(RGB), InputFormat(SIDE, SIDE, "grey")).array, grey)


def test_lossless_jpeg_cut_and_closed_is_refused() -> None:
    """As any other."""
    data = lossless_jpeg(GREY)

    for length in range(len(data) // 4, len(data) - 2, len(data) // 9):
        assert refuse(data[:length] + END) in ("IMAGE_TRUNCATED", "IMAGE_DAMAGED")


def test_lossless_slice_of_512_is_judged() -> None:
    """The size that CT has."""
    data = read_case("lossless8_512.jpg")

    assert (load_pixels(data, InputFormat(512, 512, "grey")).array.shape) == (512, 512, 1)


def with_frame(marker: int, bits: int = 8, channels: int = 1, sampling: int = 0x11, height: int = SIDE) -> bytes:
    """A JPEG whose frame header says so; nothing else of it is true."""
    frame = struct.pack(">BHHB", bits, height, SIDE, channels) + b"".join(
        bytes((number + 1, sampling if number == 1 else 0x11 if sampling == 0x11 else 0x31, 0))
        for number in range(channels)
    )
    return b"\xff\xd8" + segment(marker, frame) + segment(0xDA, b"\1\1\0\0\x3f\0") + b"\0" * 100 + END


FRAMES: dict[str, tuple[bytes, str, str]] = {
    "12-bit extended": (with_frame(0xC1, 12), "IMAGE_BIT_DEPTH", "12 bits"),
    "12-bit progressive": (with_frame(0xC2, 12), "IMAGE_BIT_DEPTH", "12 bits"),
    "16-bit lossless": (with_frame(0xC3, 16), "IMAGE_BIT_DEPTH", "16 bits"),
    "2-bit lossless": (with_frame(0xC3, 2), "IMAGE_BIT_DEPTH", "2 bit"),
    "JPEG-LS": (with_frame(0xF7, 16), "IMAGE_UNDECODABLE", "JPEG-LS"),
    "hierarchical": (with_frame(0xC5), "IMAGE_UNDECODABLE", "hierarchical"),
    "hierarchical, its first marker": (with_frame(0xDE), "IMAGE_UNDECODABLE", "hierarchical"),
    "arithmetic": (with_frame(0xC9), "IMAGE_UNDECODABLE", "arithmetic"),
    "arithmetic progressive": (with_frame(0xCA), "IMAGE_UNDECODABLE", "arithmetic"),
    "arithmetic lossless": (with_frame(0xCB), "IMAGE_UNDECODABLE", "arithmetic"),
    "two channels": (with_frame(0xC0, channels=2), "IMAGE_UNDECODABLE", "2 channels"),
    "height that comes later": (with_frame(0xC0, height=0), "IMAGE_UNDECODABLE", "height"),
    "fractional sampling": (with_frame(0xC0, channels=3, sampling=0x21), "IMAGE_UNDECODABLE", "fractional"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_kind_that_is_not_decoded_is_named_and_not_called_damaged(name: str) -> None:
    """The sender learns what it is and what to export instead."""
    data, reason, word = FRAMES[name]

    assert refuse(data) == reason
    message = message_of(data)
    assert word in message
    assert "xport it as 8-bit PNG" in message
    assert "damaged" not in message


@pytest.mark.parametrize(
    ("name", "reason", "word"),
    [
        ("extended12.jpg", "IMAGE_BIT_DEPTH", "window"),
        ("lossless12.jpg", "IMAGE_BIT_DEPTH", "window"),
        ("jpegls.jpg", "IMAGE_UNDECODABLE", "JPEG-LS"),
    ],
)
def test_deep_slices_of_dicom_are_named(name: str, reason: str, word: str) -> None:
    """What a DICOM file holds inside, taken out of it."""
    data = read_case(name)

    assert refuse(data) == reason
    assert word in message_of(data)


def test_first_picture_is_judged_when_the_other_is_its_preview() -> None:
    """A camera's file with a smaller picture behind it shows one thing."""
    data = read_case("mpo_preview.jpg")

    first = data[: data.index(END + b"\xff\xd8") + 2]

    pixels = load_pixels(data, InputFormat(256, 256)).array

    assert len(first) < len(data)
    with Image.open(io.BytesIO(first), formats=("JPEG",)) as image:
        assert np.array_equal(pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("orientation", [0, 1, 3, 8, 9])
def test_first_orientation_counts(order: str, orientation: int) -> None:
    """A second Exif block, or XMP behind it, does not turn the image again."""
    blocks = (exif_block(orientation, order), exif_block(6))
    data = insert_segments(JPEG, b"".join(segment(0xE1, b"Exif\0\0" + block) for block in blocks))

    reasons = [warning.reason for warning in load_pixels(data, EXACT).warnings]

    assert reasons == (["IMAGE_ROTATED"] if orientation in (3, 8) else [])


def test_damaged_exif_counts_as_none() -> None:
    """Endless, empty and cut directories are not followed."""
    for block in (
        b"",
        b"MM\0*",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + bytes(50000),
    ):
        assert refuse(insert_segments(JPEG, segment(0xE1, b"Exif\0\0" + block))) == "judged"


def test_orientation_in_xmp_counts_where_exif_has_none() -> None:
    """As before, when a general reader looked for it."""
    xmp = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="3"/>')

    assert [warning.reason for warning in load_pixels(insert_segments(JPEG, xmp), EXACT).warnings] == ["IMAGE_ROTATED"]


# --- time ------------------------------------------------------------------------------------------------------------

EXIF = segment(0xE1, b"Exif\0\0" + exif_block(1))
SHORT_TABLE = segment(0xC4, b"\0" + bytes(16))
NOISE = np.random.default_rng(0).integers(0, 256, (625, 625), dtype=np.uint8)


def large(colours: bool, **options: object) -> bytes:
    """25 megapixels of structure, in at most 8 MiB."""
    grey = np.kron(NOISE, np.ones((8, 8), np.uint8))
    array = np.stack((grey, np.roll(grey, 999, 0), 255 - grey), axis=-1) if colours else grey
    return encode(array, "JPEG", quality=50, **options)


SLOW: dict[str, Callable[[], bytes]] = {
    "tiny Exif segments": lambda: fill(JPEG, EXIF, LIMIT),
    "filling": lambda: fill(JPEG, b"\xff", LIMIT),
    "filling to the end": lambda: JPEG[:-2] + b"\xff" * (LIMIT - len(JPEG)),
    "filling before nothing": lambda: JPEG[:-2] + b"\xff" * (LIMIT - len(JPEG)) + b"\0",
    "filled zeros": lambda: JPEG[:-2] + b"\xff\xff\0" * ((LIMIT - len(JPEG)) // 3) + END,
    "filled restarts": lambda: JPEG[:-2] + b"\xff\xff\xd0" * ((LIMIT - len(JPEG)) // 3) + END,
    "restarts": lambda: JPEG[:-2] + b"\xff\xd0" * ((LIMIT - len(JPEG)) // 2) + END,
    "empty comments": lambda: fill(JPEG, segment(0xFE), LIMIT),
    "empty tables": lambda: fill(JPEG, SHORT_TABLE, LIMIT),
    "tables in long segments": lambda: fill(JPEG, segment(0xC4, (b"\0" + bytes(16)) * 3850), LIMIT),
    "quantisation tables": lambda: fill(JPEG, segment(0xDB, (b"\3" + b"\1" * 64) * 1000), LIMIT),
    "passes that find nothing": lambda: progressive_bomb(5000, 5000, 13),
    "25 megapixels, grey": lambda: large(False),
    "25 megapixels, grey, progressive": lambda: large(False, progressive=True),
    "25 megapixels, colour": lambda: large(True, subsampling=0),
    "25 megapixels, colour, progressive": lambda: large(True, subsampling=0, progressive=True),
    "25 megapixels, 4:2:0, progressive, turned": lambda: insert_segments(
        large(True, subsampling=2, progressive=True), segment(0xE1, b"Exif\0\0" + exif_block(5))
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_no_jpeg_holds_a_worker(name: str) -> None:
    """Hostile or just large, in every kind of model: it is answered or refused in the time promised."""
    data = SLOW[name]()
    assert len(data) <= LIMIT

    for input_format in (InputFormat(256, 256, "grey"), InputFormat(512, 512, "rgb", "nearest")):
        started = time.thread_time()
        refuse(data, input_format)
        assert time.thread_time() - started < LONGEST


def test_segments_are_bounded_in_number() -> None:
    """So many that no writer makes them: refused; half of it: judged."""
    note = segment(0xFE, b"note")

    assert refuse(insert_segments(JPEG, note * MAX_SEGMENTS)) == "IMAGE_UNDECODABLE"
    assert refuse(insert_segments(JPEG, note * (MAX_SEGMENTS // 2))) == "judged"


def test_passes_over_a_large_image_are_bounded_and_over_a_small_one_are_not() -> None:
    """A pass costs what its blocks cost: thrice as many components leave room for a third of the passes."""
    assert refuse(progressive_bomb(5000, 5000, 13)) == "judged"
    assert refuse(progressive_bomb(5000, 5000, 13, components=3)) == "IMAGE_UNDECODABLE"
    assert refuse(progressive_bomb(500, 500, 13, components=3)) == "judged"


def test_judging_a_large_honest_jpeg_succeeds() -> None:
    """The largest image allowed is no attack."""
    assert refuse(large(True, subsampling=0, progressive=True), InputFormat(256, 256, "grey")) == "judged"
