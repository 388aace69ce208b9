"""Whose fault a failing decoder is: the image's, or the machine's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from server.errors import ImageError
from server.images import jpeg_file
from server.images.preprocess import InputFormat, load_pixels
from tests.fakes import encode, make_slice

SIDE = 96
GREY = make_slice(side=SIDE)
WANTED = InputFormat(SIDE, SIDE)


def fail_with(error: Exception) -> Callable[..., object]:
    def fail(*values: object, **options: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    "said", [MemoryError(), ValueError("Insufficient memory (case 4)"), RuntimeError("could not create JPEG decoder")]
)
def test_jpeg_decoder_short_of_memory_is_not_the_images_fault(said: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """However libjpeg-turbo puts it."""
    monkeypatch.setattr(jpeg_file.simplejpeg, "decode_jpeg", fail_with(said))

    with pytest.raises(MemoryError):
        load_pixels(encode(GREY, "JPEG"), WANTED)


@pytest.mark.parametrize("call", ["new", "frombuffer", "merge"])
def test_pillow_short_of_memory_is_not_the_images_fault(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever on the way it happens."""
    monkeypatch.setattr(Image, call, fail_with(MemoryError()))
    image_format = "JPEG" if call == "frombuffer" else "PNG"

    with pytest.raises(MemoryError):
        load_pixels(encode_before(image_format), WANTED)


@pytest.mark.parametrize("error", [TypeError("a mistake"), AttributeError("a mistake"), OSError("a mistake")])
def test_mistake_of_ours_is_not_called_a_damaged_image(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the log as what it is."""
    monkeypatch.setattr(jpeg_file.simplejpeg, "decode_jpeg", fail_with(error))

    with pytest.raises(type(error)):
        load_pixels(encode_before("JPEG"), WANTED)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Corrupt JPEG data: premature end of data segment", "IMAGE_TRUNCATED"),
        ("Corrupt JPEG data: bad Huffman code", "IMAGE_DAMAGED"),
        ("Corrupt JPEG data: 12 extraneous bytes before marker 0xd9", "IMAGE_DAMAGED"),
        ("Unsupported color conversion request", "IMAGE_UNDECODABLE"),
        ("Requested feature was omitted at compile time: not supported", "IMAGE_UNDECODABLE"),
    ],
)
def test_what_libjpeg_says_has_a_reason(text: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its warnings are refusals here, and what it cannot do is not called damage."""
    monkeypatch.setattr(jpeg_file.simplejpeg, "decode_jpeg", fail_with(ValueError(text)))

    with pytest.raises(ImageError) as refusal:
        load_pixels(encode_before("JPEG"), WANTED)

    assert refusal.value.reason == reason


FILES = {"PNG": encode(GREY), "JPEG": encode(GREY, "JPEG")}


def encode_before(image_format: str) -> bytes:
    """A file that was made while everything worked."""
    return FILES[image_format]
