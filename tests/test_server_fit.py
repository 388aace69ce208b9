"""What of an image goes where in a model's input: stretched, padded, or cropped to the aspect ratio."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from server.images.fit import place
from server.images.preprocess import InputFormat, load_pixels
from server.images.resample import LIBRARY_FILTERS, RESAMPLE_FILTERS
from tests.fakes import encode, make_slice

WIDE = np.zeros((60, 100), np.uint8)
WIDE[:, 20:80] = 200
"""What lies outside the middle square is black."""


@pytest.mark.parametrize("resample", RESAMPLE_FILTERS)
def test_crop_takes_the_middle(resample: str) -> None:
    """All of the shorter side, and as much of the longer one as has the input's aspect ratio."""
    for image in (WIDE, WIDE.T):
        pixels = load_pixels(encode(image), InputFormat(40, 40, "grey", resample, "crop"))

        assert (pixels.array == 200).all()


def test_crop_of_a_jpeg_is_taken_from_what_was_shrunk_on_load() -> None:
    """The middle stays the middle, at every size that a JPEG is decoded at."""
    image = WIDE.repeat(12, axis=0).repeat(12, axis=1)

    pixels = load_pixels(encode(image, "JPEG"), InputFormat(64, 64, "grey", "bilinear", "crop"))

    assert (np.abs(pixels.array[:, 2:-2].astype(int) - 200) <= 2).all()


def test_crop_of_the_right_aspect_ratio_cuts_nothing() -> None:
    """It is a stretch then."""
    data = encode(make_slice(side=96))

    stretched, cropped = (load_pixels(data, InputFormat(64, 64, fit=fit)).array for fit in ("stretch", "crop"))

    assert np.array_equal(stretched, cropped)


def test_cropped_image_is_enlarged_by_what_is_left_of_it() -> None:
    """An image may be wide and its middle small."""
    data = encode(np.tile(make_slice(side=40), (1, 5)))

    def reasons(fit: str) -> list[str]:
        return [warning.reason for warning in load_pixels(data, InputFormat(64, 64, fit=fit)).warnings]

    assert reasons("stretch") == []
    assert reasons("crop") == ["IMAGE_UPSCALED"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("shape", [(97, 131), (131, 97), (64, 300), (50, 40)])
def test_crop_is_smart_resize_of_keras(shape: tuple[int, int]) -> None:
    """And so what ``image_dataset_from_directory(crop_to_aspect_ratio=True)`` makes, rounded to whole levels."""
    from keras.preprocessing.image import smart_resize

    image = np.random.RandomState(1).randint(0, 256, shape).astype(np.uint8)

    theirs = smart_resize(image[:, :, np.newaxis].astype(np.float32), (64, 48), interpolation="bilinear")
    pixels = load_pixels(encode(image), InputFormat(64, 48, "grey", "tf-bilinear", "crop")).array

    assert np.abs(pixels - theirs).max() <= 0.51


@pytest.mark.tensorflow
@pytest.mark.parametrize("shape", [(97, 131), (131, 97), (436, 85), (50, 300), (50, 50)])
def test_pad_is_resize_with_pad_of_tensorflow(shape: tuple[int, int]) -> None:
    """With TensorFlow's filters; it rounds sizes and margins down, in float32."""
    import tensorflow as tf

    image = np.random.RandomState(1).randint(0, 256, shape).astype(np.uint8)

    theirs = tf.image.resize_with_pad(image[:, :, np.newaxis], 200, 128).numpy()
    pixels = load_pixels(encode(image), InputFormat(200, 128, "grey", "tf-bilinear", "pad")).array

    assert np.abs(pixels - theirs).max() <= 0.51


@pytest.mark.parametrize("resample", RESAMPLE_FILTERS)
@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (33, 95), (90, 91)])
def test_content_is_the_image_without_what_pad_added(resample: str, shape: tuple[int, int]) -> None:
    """No row of the image is missing in it, and at most two of the margins, which are not always equal, are there."""
    pixels = load_pixels(encode(np.full(shape, 200, np.uint8)), InputFormat(64, 64, "grey", resample, "pad"))

    seen = np.count_nonzero(pixels.array == 200)
    assert np.count_nonzero(pixels.content == 200) == seen
    assert pixels.content.size <= seen + 2 * 64


def test_content_of_a_cropped_image_is_all_of_it() -> None:
    """There are no margins."""
    pixels = load_pixels(encode(WIDE), InputFormat(40, 40, "grey", fit="crop"))

    assert pixels.margins == (0, 0)
    assert pixels.content.shape == (40, 40, 1)


@pytest.mark.parametrize("size", [(8192, 32), (32, 8192), (1, 1)])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_something_is_left_of_a_strip(size: tuple[int, int], fit: str) -> None:
    """At least a pixel is taken, and gets at least a pixel."""
    for resample in ("bilinear", *LIBRARY_FILTERS):
        placement = place(size, (224, 1), fit, like_tf=resample.startswith("tf-"))

        left, top, right, bottom = placement.source
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert min(placement.size) >= 1


def test_pad_is_that_of_pillow() -> None:
    """With Pillow's filters: ``ImageOps.pad`` puts the image where we put it."""
    from PIL import ImageOps

    for width, height in [(100, 61), (61, 100), (99, 37), (640, 301), (64, 64)]:
        image = Image.new("L", (width, height), 200)

        pixels = load_pixels(encode(np.asarray(image)), InputFormat(50, 64, "grey", "bilinear", "pad")).array

        assert np.array_equal(pixels[:, :, 0], np.asarray(ImageOps.pad(image, (64, 50))))
