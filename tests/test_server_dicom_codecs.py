"""Compressed DICOM slices: the same values from every lossless syntax, refusals for what is not as the header says."""

from __future__ import annotations

import importlib.metadata
import struct
from dataclasses import replace

import numpy as np
import pytest

from bench.dicom.frames import (
    JPEG,
    JPEG_2000,
    JPEG_2000_LOSSY,
    JPEG_LS,
    LOSSLESS,
    NEAR_LOSSLESS,
    RLE,
    SV1,
    compress,
    encapsulate,
    encode,
    make_words,
)
from server.errors import ImageError
from server.images.dicom.codecs.decoders import DECODERS
from server.images.dicom.codecs.encapsulation import take_frame
from server.images.dicom.codecs.frames import decode_frame
from server.images.dicom.header import FrameShape
from server.images.dicom.syntax import COMPRESSED, LOSSY
from server.images.dicom.window import BRAIN
from server.images.preprocess import InputFormat, load_pixels
from tests.dicom_codecs import HTJ2K, read_htj2k
from tests.dicom_files import make_dicom, make_enhanced, make_hu

SHAPES = [FrameShape(64, 80, bits, signed) for bits in (12, 16) for signed in (False, True)]
SHAPE = SHAPES[0]
MODEL = InputFormat(64, 64, "grey", windows=(BRAIN,))


def decode(syntax: str, data: bytes, shape: FrameShape = SHAPE) -> np.ndarray:
    """The words of the only frame."""
    return decode_frame(syntax, encapsulate([data]), 0, 1, shape)


def to_values(words: np.ndarray, shape: FrameShape) -> np.ndarray:
    """What the bits stored of each word say, int [rows, columns]."""
    unused = 16 - shape.bits_stored
    shifted = words << unused
    return (shifted.view(np.int16) if shape.is_signed else shifted).astype(np.int32) >> unused


def refuse(syntax: str, data: bytes, shape: FrameShape = SHAPE) -> ImageError:
    """The refusal that compressed data gets."""
    with pytest.raises(ImageError) as caught:
        decode(syntax, data, shape)
    return caught.value


def test_every_compressed_syntax_that_is_not_refused_has_one_decoder() -> None:
    """And the other way round."""
    assert set(DECODERS) == set(COMPRESSED)


def test_gpl_codec_is_not_installed() -> None:
    """It would be found and used by pydicom, and the licence is not this project's."""
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("pylibjpeg-libjpeg")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_keep_every_value(syntax: str, shape: FrameShape) -> None:
    """Signed and unsigned, 12 bits and 16, whether bits stored or whole words were encoded."""
    words = make_words(shape)

    for precision in {shape.bits_stored, 16}:
        decoded = decode(syntax, encode(syntax, words, shape, precision), shape)
        np.testing.assert_array_equal(to_values(decoded, shape), to_values(words, shape))


@pytest.mark.parametrize("syntax", HTJ2K)
def test_high_throughput_jpeg_2000_keeps_every_value(syntax: str) -> None:
    """In a file that OpenJPH has written, since no encoder is among the libraries here."""
    shape, data = read_htj2k()

    np.testing.assert_array_equal(decode(syntax, data, shape), make_words(shape))


@pytest.mark.parametrize(("syntax", "most"), [(NEAR_LOSSLESS, 2), (JPEG_2000_LOSSY, 80)])
def test_lossy_syntaxes_stay_close(syntax: str, most: int) -> None:
    """As close as they were asked to."""
    for shape in SHAPES:
        words = make_words(shape)
        difference = to_values(decode(syntax, encode(syntax, words, shape), shape), shape) - to_values(words, shape)
        assert 0 < np.abs(difference).max() <= most


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_model_sees_the_same_of_a_compressed_file(syntax: str) -> None:
    """Bit for bit, signed or not."""
    for signed in (False, True):
        plain = make_dicom(make_hu(), bits=12, signed=signed, intercept=0 if signed else -1024)

        seen = load_pixels(compress(plain, syntax), MODEL)

        np.testing.assert_array_equal(seen.array, load_pixels(plain, MODEL).array)
        assert "IMAGE_LOSSY" not in [warning.reason for warning in seen.warnings]


@pytest.mark.parametrize("syntax", [NEAR_LOSSLESS, JPEG_2000_LOSSY])
def test_lossy_file_is_judged_with_a_warning(syntax: str) -> None:
    """Who asks decides whether that is good enough."""
    seen = load_pixels(compress(make_dicom(make_hu(), bits=12), syntax), MODEL)

    assert "IMAGE_LOSSY" in [warning.reason for warning in seen.warnings]
    assert syntax in LOSSY


def test_frames_of_a_compressed_file_are_told_apart() -> None:
    """By their items."""
    plain = make_enhanced(np.stack([make_hu(seed=seed) for seed in range(3)]))
    packed = compress(plain, JPEG_2000)

    for frame in (1, 2, 3):
        expected = load_pixels(plain, MODEL, frame=frame).array
        np.testing.assert_array_equal(load_pixels(packed, MODEL, frame=frame).array, expected)


@pytest.mark.parametrize("syntax", [*LOSSLESS, NEAR_LOSSLESS, JPEG_2000_LOSSY])
def test_data_that_ends_too_early_is_refused(syntax: str) -> None:
    """Wherever it ends: a slice of which a part is missing is not judged."""
    data = encode(syntax, make_words(SHAPE), SHAPE)

    for length in (len(data) // 3, len(data) * 2 // 3, len(data) - 12):
        assert refuse(syntax, data[:length]).reason == "DICOM_UNDECODABLE"


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_image_of_another_size_than_the_header_says_is_refused(syntax: str) -> None:
    """Codecs would decode it, and rows would be those of another width."""
    data = encode(syntax, make_words(SHAPE), SHAPE)

    others = [replace(SHAPE, rows=32), replace(SHAPE, rows=65), replace(SHAPE, columns=81)]
    if syntax != RLE:  # which says nothing of rows
        others.append(replace(SHAPE, rows=32, columns=160))
    for shape in others:
        error = refuse(syntax, data, shape)
        assert error.reason == "DICOM_UNDECODABLE"
        assert COMPRESSED[syntax] in error.message


def test_jpeg_2000_of_another_sign_than_the_header_says_is_refused() -> None:
    """Both ways to read it give values that could be those of a head."""
    unsigned = encode(JPEG_2000, make_words(SHAPE), SHAPE)

    assert "sign" in refuse(JPEG_2000, unsigned, replace(SHAPE, is_signed=True)).message


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000])
def test_eight_bits_are_no_ct_values(syntax: str) -> None:
    """However many the header says."""
    shape = replace(SHAPE, bits_stored=8)

    assert "depth" in refuse(syntax, encode(syntax, make_words(shape), shape)).message


def test_lossy_values_beyond_the_bits_stored_are_refused() -> None:
    """What their lowest bits say would be another value."""
    words = np.full((SHAPE.rows, SHAPE.columns), 4100, np.uint16)

    assert "depth" in refuse(NEAR_LOSSLESS, encode(NEAR_LOSSLESS, words, SHAPE, 16)).message


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_nothing_and_noise_are_refused(syntax: str) -> None:
    """Whatever a codec calls it."""
    noise = np.random.default_rng(0).bytes(3000)

    for data in (b"", bytes(100), noise, encode(syntax, make_words(SHAPE), SHAPE)[:40] + noise):
        assert refuse(syntax, data).reason == "DICOM_UNDECODABLE"


def test_refusal_of_rle_segments_that_point_elsewhere() -> None:
    """Backwards, into the header, behind the end."""
    data = encode(RLE, make_words(SHAPE), SHAPE)

    for count, first, second in ((2, 64, 64), (2, 0, 100), (2, 64, 1 << 31), (3, 64, 100), (0, 0, 0), (15, 64, 65)):
        assert refuse(RLE, struct.pack("<3I", count, first, second) + data[12:]).reason == "DICOM_UNDECODABLE"


def test_one_frame_may_be_in_several_fragments() -> None:
    """Writers cut where they like; two of a file's fragments are no two frames."""
    data = encode(SV1, make_words(SHAPE), SHAPE)
    data += b"\0" * (len(data) % 2)
    pieces = [data[:1000], data[1000:1002], data[1002:]]

    np.testing.assert_array_equal(decode_frame(SV1, encapsulate(pieces), 0, 1, SHAPE), make_words(SHAPE))


def test_offsets_say_which_fragments_make_a_frame() -> None:
    """Where each has several."""
    fragments = [b"aa", b"bb", b"cc", b"dd"]
    packed = encapsulate(fragments, (0, 10))

    assert [take_frame(packed, index, 2) for index in range(2)] == [b"aa", b"bbccdd"]
    assert take_frame(encapsulate(fragments), 2, 4) == b"cc"
    assert take_frame(memoryview(encapsulate(fragments) + b"more elements"), 0, 1) == b"aabbccdd"


@pytest.mark.parametrize(
    ("packed", "frames", "reason"),
    {
        "no items": (b"", 1, "DICOM_TRUNCATED"),
        "only a table": (encapsulate([]), 1, "DICOM_UNDECODABLE"),
        "no table": (encapsulate([])[8:], 1, "DICOM_UNDECODABLE"),
        "other elements": (b"\x10\x00\x10\x00" + bytes(40), 1, "DICOM_UNDECODABLE"),
        "item longer than the file": (encapsulate([b"ab"])[:-9], 1, "DICOM_TRUNCATED"),
        "no delimiter": (encapsulate([b"ab"])[:-8], 1, "DICOM_TRUNCATED"),
        "frames without offsets": (encapsulate([b"aa", b"bb", b"cc"]), 2, "DICOM_UNDECODABLE"),
        "offsets of another number": (encapsulate([b"aa", b"bb", b"cc"], (0, 10, 20)), 2, "DICOM_UNDECODABLE"),
        "offsets behind the end": (encapsulate([b"aa", b"bb", b"cc"], (900, 990)), 2, "DICOM_UNDECODABLE"),
        "a million items": (encapsulate([b""] * 100_000), 1, "DICOM_UNDECODABLE"),
    }.values(),
)
def test_items_that_are_not_as_dicom_has_them_are_refused(packed: bytes, frames: int, reason: str) -> None:
    """None is guessed at."""
    with pytest.raises(ImageError) as caught:
        take_frame(packed, 0, frames)

    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("syntax", "reason"), [(f"{JPEG}.51", "DICOM_JPEG_12_BIT"), (f"{JPEG}.50", "DICOM_NO_DECODER")]
)
def test_syntaxes_without_a_decoder_are_refused(syntax: str, reason: str) -> None:
    """12-bit JPEG, which no free library decodes, and JPEG of 8 bits, in which there are no CT values."""
    with pytest.raises(ImageError) as caught:
        load_pixels(compress(make_dicom(make_hu()), RLE, called=syntax), MODEL)

    assert caught.value.reason == reason
