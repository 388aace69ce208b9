"""The image gate: what is judged, what is refused and why, and what pixels come out."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from server.errors import ImageError
from server.images.image_file import ImageLimits
from server.images.preprocess import InputFormat, decode_image, load_pixels
from tests.fakes import encode, make_slice

GREY = make_slice(side=96)
RGB = np.repeat(GREY[:, :, np.newaxis], 3, axis=2)
MODEL_INPUT = InputFormat(64, 64)


def save(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with_header(width: int, height: int, bits: int, colour: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def insert_chunk(png: bytes) -> bytes:
    """Puts a private chunk before the header, which the specification forbids and Pillow allows."""
    return png[:8] + chunk(b"prVt", b"x" * 13) + png[8:]


def add_header(png: bytes, bits: int) -> bytes:
    """Adds a second header after the first; Pillow takes the last."""
    return png[:33] + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, bits, 2, 0, 0, 0)) + png[33:]


def many_scans_jpeg() -> bytes:
    """A progressive JPEG whose last pass stands in it 200 times."""
    data = encode(GREY, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 200 + data[-2:]


def animated_png() -> bytes:
    frames = [Image.fromarray(make_slice(seed=seed)) for seed in range(3)]
    return save(frames[0], "PNG", save_all=True, append_images=frames[1:])


def multi_picture_jpeg() -> bytes:
    frames = [Image.fromarray(make_slice(seed=seed)) for seed in range(2)]
    return save(frames[0], "MPO", save_all=True, append_images=frames[1:])


def bomb_jpeg() -> bytes:
    """A JPEG whose header claims 61472 x 32800 pixels."""
    data = bytearray(encode(GREY, "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 32800, 61472)
    return bytes(data)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "IMAGE_EMPTY"),
    "text": (lambda: b"patient name, date\n" * 100, "IMAGE_UNDECODABLE"),
    "one pixel": (lambda: encode(GREY[:1, :1]), "IMAGE_TOO_SMALL"),
    "31 pixels a side": (lambda: encode(GREY[:31, :31]), "IMAGE_TOO_SMALL"),
    "one side too long": (lambda: encode(np.zeros((32, 8193), np.uint8)), "IMAGE_TOO_LARGE"),
    "too many pixels": (lambda: encode(np.zeros((5001, 5000), np.uint8)), "IMAGE_TOO_LARGE"),
    "file too large": (lambda: b"\x89PNG\r\n\x1a\n" + b"\0" * 8 * 1024 * 1024, "IMAGE_TOO_LARGE"),
    "bomb: tiny PNG that claims 20000 x 20000": (lambda: png_with_header(20000, 20000, 8, 0), "IMAGE_TOO_LARGE"),
    "bomb: tiny JPEG that claims 61472 x 32800": (bomb_jpeg, "IMAGE_TOO_LARGE"),
    "huge header": (lambda: png_with_header(2**31 - 1, 2**31 - 1, 8, 2), "IMAGE_TOO_LARGE"),
    "header of size 0": (lambda: png_with_header(0, 0, 8, 0), "IMAGE_UNDECODABLE"),
    "header without pixels": (lambda: png_with_header(64, 64, 8, 0), "IMAGE_TRUNCATED"),
    "16-bit grey": (lambda: save(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), "IMAGE_BIT_DEPTH"),
    "16-bit RGB": (lambda: png_with_header(64, 64, 16, 2), "IMAGE_BIT_DEPTH"),
    "1-bit": (lambda: save(Image.fromarray(GREY).convert("1"), "PNG"), "IMAGE_BIT_DEPTH"),
    "CMYK": (lambda: save(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "IMAGE_COLOUR_MODE"),
    "animated PNG": (animated_png, "IMAGE_MULTI_FRAME"),
    "multi-picture JPEG": (multi_picture_jpeg, "IMAGE_MULTI_FRAME"),
    "GIF": (lambda: save(Image.fromarray(GREY), "GIF"), "IMAGE_UNDECODABLE"),
    "TIFF": (lambda: save(Image.fromarray(GREY), "TIFF"), "IMAGE_UNDECODABLE"),
    "BMP": (lambda: save(Image.fromarray(GREY), "BMP"), "IMAGE_UNDECODABLE"),
    "bomb: JPEG of many passes": (many_scans_jpeg, "IMAGE_UNDECODABLE"),
    "16-bit behind another chunk": (lambda: insert_chunk(png_with_header(64, 64, 16, 2)), "IMAGE_UNDECODABLE"),
    "16-bit behind an 8-bit header": (lambda: add_header(png_with_header(64, 64, 8, 2), 16), "IMAGE_BIT_DEPTH"),
    "DICOM": (lambda: b"\0" * 128 + b"DICM" + b"\0" * 1000, "DICOM_WINDOW_MISSING"),
    "JPEG signature and garbage": (lambda: b"\xff\xd8\xff" + b"\x01" * 500 + b"\xff\xd9", "IMAGE_UNDECODABLE"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_odd_image_is_refused_with_its_reason(name: str) -> None:
    """Each unsuitable file has one reason, and a sentence that ends and does not quote the file."""
    make, reason = REFUSED[name]

    with pytest.raises(ImageError) as refusal:
        decode_image(make(), MODEL_INPUT)

    assert refusal.value.reason == reason
    assert refusal.value.message.endswith(".")
    assert "patient" not in refusal.value.message


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
def test_truncated_image_is_refused_at_every_tenth(image_format: str, array: np.ndarray) -> None:
    """However early a file ends, no half image is judged."""
    data = encode(array, image_format)

    for tenth in range(1, 10):
        with pytest.raises(ImageError) as refusal:
            decode_image(data[: len(data) * tenth // 10], MODEL_INPUT)

        assert refusal.value.reason in ("IMAGE_TRUNCATED", "IMAGE_UNDECODABLE")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_truncated_image_is_refused_at_every_byte(image_format: str) -> None:
    """Not even the last byte may be missing."""
    data = encode(GREY[:40, :40], image_format)

    for length in range(len(data)):
        with pytest.raises(ImageError):
            decode_image(data[:length], MODEL_INPUT)


def test_sixteen_bit_message_says_how_to_export() -> None:
    """A technician learns that a window is needed."""
    with pytest.raises(ImageError, match="window") as refusal:
        decode_image(REFUSED["16-bit grey"][0](), MODEL_INPUT)

    assert "8-bit" in refusal.value.message


def test_limits_are_configurable() -> None:
    """Every limit of the gate can be moved."""
    data = encode(GREY)

    for limits, reason in (
        (ImageLimits(max_bytes=len(data) - 1), "IMAGE_TOO_LARGE"),
        (ImageLimits(max_side=95), "IMAGE_TOO_LARGE"),
        (ImageLimits(max_pixels=96 * 96 - 1), "IMAGE_TOO_LARGE"),
        (ImageLimits(min_side=97), "IMAGE_TOO_SMALL"),
    ):
        with pytest.raises(ImageError) as refusal:
            decode_image(data, MODEL_INPUT, limits)
        assert refusal.value.reason == reason
    assert decode_image(encode(GREY[:1, :1]), MODEL_INPUT, ImageLimits(min_side=1)).image.size == (1, 1)


def test_limits_are_checked_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb is refused by its header alone."""
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("pixels were decoded"))

    with pytest.raises(ImageError, match="pixels"):
        decode_image(png_with_header(20000, 20000, 8, 0), MODEL_INPUT)


@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
def test_eight_bit_pixels_come_through_unchanged(array: np.ndarray) -> None:
    """At the model's own size a PNG's values are the model's values."""
    pixels = load_pixels(encode(array), InputFormat(96, 96))

    assert np.array_equal(pixels.array, RGB)
    assert pixels.warnings == ()


def test_grey_resizes_to_the_same_pixels_as_its_rgb_copy() -> None:
    """The short cut for grey images changes nothing."""
    grey, rgb = (load_pixels(encode(array), MODEL_INPUT).array for array in (GREY, RGB))

    assert np.array_equal(grey, rgb)


def test_grey_model_gets_one_channel() -> None:
    """The array has the model's channels, from grey and from RGB files."""
    wanted = InputFormat(96, 96, colour="grey")

    for array in (GREY, RGB):
        assert np.array_equal(load_pixels(encode(array), wanted).array, GREY[:, :, np.newaxis])


def test_palette_is_converted_to_its_colours() -> None:
    """A palette image is judged by the colours it shows, not by its indices."""
    image = Image.fromarray(GREY).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)

    pixels = load_pixels(save(image, "PNG"), InputFormat(96, 96))

    assert np.array_equal(pixels.array, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_composited_on_black(mode: str) -> None:
    """What a viewer hides stays hidden, and the answer says so."""
    image = Image.fromarray(RGB).convert(mode)
    alpha = np.full((96, 96), 255, np.uint8)
    alpha[:, :48] = 0
    image.putalpha(Image.fromarray(alpha))

    pixels = load_pixels(save(image, "PNG"), InputFormat(96, 96))

    assert not pixels.array[:, :48].any()
    assert np.array_equal(pixels.array[:, 48:], RGB[:, 48:])
    assert [warning.reason for warning in pixels.warnings] == ["IMAGE_TRANSPARENT"]


def test_transparent_palette_entry_becomes_black() -> None:
    """Transparency by palette entry counts as well."""
    image = Image.fromarray(np.repeat(np.uint8([[0, 1]]), 48, axis=1).repeat(96, axis=0)).convert("P")
    image.putpalette([255, 255, 255, 100, 100, 100])

    pixels = load_pixels(save(image, "PNG", transparency=0), InputFormat(96, 96))

    assert not pixels.array[:, :48].any()
    assert (pixels.array[:, 48:] == 100).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(orientation: int, image_format: str) -> None:
    """Left and right matter: the bright side is where a viewer shows it."""
    upright = np.zeros((96, 64), np.uint8)
    upright[:48, :32] = 200
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(np.ascontiguousarray(undo[orientation](upright)), image_format, exif=exif)

    pixels = load_pixels(data, InputFormat(96, 64))

    assert np.abs(pixels.array[:, :, 0].astype(int) - upright).mean() < 2
    assert [warning.reason for warning in pixels.warnings] == ([] if orientation == 1 else ["IMAGE_ROTATED"])


def test_blank_coloured_and_enlarged_images_are_judged_with_a_warning() -> None:
    """What is odd but decodable is answered, and the answer says what is odd."""
    coloured = RGB.copy()
    coloured[20:60, 20:60, 0] = 255

    def reasons(array: np.ndarray) -> list[str]:
        return [warning.reason for warning in load_pixels(encode(array), MODEL_INPUT).warnings]

    assert reasons(np.zeros((96, 96), np.uint8)) == ["IMAGE_BLANK"]
    assert reasons(coloured) == ["IMAGE_COLOURED"]
    assert reasons(GREY[:40, :40]) == ["IMAGE_UPSCALED"]


def test_grey_photo_as_colour_jpeg_is_not_called_coloured() -> None:
    """Chroma rounding of a grey slice saved as RGB JPEG is not colour."""
    assert load_pixels(encode(RGB, "JPEG", quality=75), MODEL_INPUT).warnings == ()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_colours_are_noticed_in_every_format(image_format: str, colour: str) -> None:
    """Also where a JPEG's colours are not decoded, because a grey model takes its brightness alone."""
    coloured = np.repeat(make_slice(side=512)[:, :, np.newaxis], 3, axis=2)
    coloured[100:300, 100:300, 0] = 255

    pixels = load_pixels(encode(coloured, image_format), InputFormat(64, 64, colour))

    assert [warning.reason for warning in pixels.warnings] == ["IMAGE_COLOURED"]


# --- shrinking on load -----------------------------------------------------------------------------------------------

SMOOTH = np.asarray(Image.fromarray(make_slice(side=24, seed=3)).resize((650, 650), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("side", [64, 100, 256, 324, 325, 326, 649])
def test_shrinking_on_load_gives_nearly_the_pixels_of_one_resize(image_format: str, colour: str, side: int) -> None:
    """Within two grey levels on average, and without a shift, at any ratio of sizes."""
    data = encode(SMOOTH, image_format, **({"quality": 95} if image_format == "JPEG" else {}))

    pixels = load_pixels(data, InputFormat(side, side, colour)).array.astype(float)

    plain = np.asarray(Image.fromarray(SMOOTH).resize((side, side), Image.Resampling.BILINEAR))
    assert pixels.shape == (side, side, 1 if colour == "grey" else 3)
    assert np.abs(pixels - plain[:, :, np.newaxis]).mean() < 2


def test_jpeg_is_scaled_in_its_own_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grey model's JPEG is decoded at a fraction of its size, and never below the model's."""
    decoded: list[tuple[str, tuple[int, int]]] = []
    load = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda image: (decoded.append((image.mode, image.size)), load(image))[1])

    data = encode(SMOOTH, "JPEG")

    for side, expected in ((256, 325), (300, 325), (326, 650), (70, 82)):
        decoded.clear()
        load_pixels(data, InputFormat(side, side, "grey"))
        assert decoded[0] == ("L", (expected, expected))


def test_nearest_takes_pixels_as_they_are() -> None:
    """A filter that does not average is not given averages."""
    data = encode(np.tile(np.uint8([[0, 255], [255, 0]]), (64, 64)))

    pixels = load_pixels(data, InputFormat(64, 64, "grey", resample="nearest")).array

    assert set(np.unique(pixels)) <= {0, 255}


def test_turned_jpeg_is_not_shrunk_below_the_model() -> None:
    """What is wide in the file may be high upright; the shorter side counts for both."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(make_slice(side=512)[:256], "JPEG", exif=exif)

    decoded = decode_image(data, InputFormat(512, 64, "grey"))

    assert decoded.image.size == (256, 512)


@pytest.mark.parametrize("shape", [(48, 700), (700, 48), (650, 300)])
def test_padding_shrinks_by_the_longer_side(shape: tuple[int, int]) -> None:
    """With fit=pad a large image ends where a plain resize would put it."""
    image = np.full(shape, 200, np.uint8)

    pixels = load_pixels(encode(image), InputFormat(64, 64, "grey", fit="pad")).array[:, :, 0]

    height, width = (round(side * 64 / max(shape)) for side in shape)
    assert pixels.any(axis=1).sum() == height
    assert pixels.any(axis=0).sum() == width
    assert set(np.unique(pixels)) == {0, 200}


def test_pad_keeps_the_aspect_ratio_on_black() -> None:
    """With fit=pad a wide image gets black above and below."""
    pixels = load_pixels(encode(np.full((48, 96), 200, np.uint8)), InputFormat(64, 64, fit="pad"))

    assert (pixels.array[16:48] == 200).all()
    assert not pixels.array[:16].any()
    assert not pixels.array[48:].any()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_nothing_but_an_image_error_leaves_the_gate(image_format: str) -> None:
    """Seeded damage of every kind: Pillow's many exception types never come through."""
    rng = random.Random(7)
    original = encode(RGB, image_format)
    refused = 0

    for _ in range(1500):
        data = bytearray(original)
        for _ in range(rng.randint(1, 8)):
            position = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[position] ^= 1 << rng.randrange(8)
                case 1:
                    data[position : position + 4] = struct.pack(">I", rng.choice((0, 2**31 - 1, 2**32 - 1)))
                case 2:
                    del data[position : position + rng.randint(1, 40)]
                case 3:
                    data[position:position] = rng.randbytes(rng.randint(1, 40))
            if not data:
                break
        try:
            decode_image(bytes(data), MODEL_INPUT)
        except ImageError:
            refused += 1

    assert refused > 100
