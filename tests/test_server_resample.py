"""Names of resizes mean what the libraries do that they are named after.

TensorFlow and Pillow are asked themselves. What OpenCV answers is recorded in ``opencv_pixels.npz``, made with 5.0.0
(4.6.0 and 4.11.0 give the same) by these lines::

    image = np.random.RandomState(13).randint(0, 256, (14, 18)).astype(np.uint8)
    kinds = dict(nearest=cv2.INTER_NEAREST, bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC, area=cv2.INTER_AREA,
                 lanczos=cv2.INTER_LANCZOS4)
    np.savez_compressed("tests/opencv_pixels.npz", **{
        f"{name} {width} {height}": cv2.resize(image, (width, height), interpolation=kind)
        for name, kind in kinds.items()
        for width, height in [(7, 5), (9, 7), (31, 20), (5, 19), (18, 6)]
    })
"""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.images import resample as module
from server.images.preprocess import InputFormat, decode_image, load_pixels
from server.images.resample import LIBRARY_FILTERS, RESAMPLE_FILTERS, resample
from tests.fakes import encode

RECORDED = np.load(Path(__file__).with_name("opencv_pixels.npz"))
OF_OPENCV = np.random.RandomState(13).randint(0, 256, (14, 18)).astype(np.uint8)
NOISE = np.random.RandomState(5).randint(0, 256, (97, 131)).astype(np.uint8)

EXACT = {"cv2-nearest", "cv2-bilinear", "cv2-area"}
"""The others are sums of fractions, which may be rounded the other way where they lie half between two levels."""


def resize(array: np.ndarray, width: int, height: int, name: str) -> np.ndarray:
    return np.asarray(resample(Image.fromarray(array), (width, height), name))


def test_names_stay() -> None:
    """Files of models state them."""
    assert (
        *("nearest", "bilinear", "bicubic", "box", "lanczos"),
        *("tf-nearest", "tf-bilinear", "tf-bicubic", "tf-area"),
        *("cv2-nearest", "cv2-bilinear", "cv2-bicubic", "cv2-area", "cv2-lanczos"),
        *("pillow-bilinear", "pillow-bicubic", "pillow-box", "pillow-hamming", "pillow-lanczos"),
    ) == RESAMPLE_FILTERS


@pytest.mark.parametrize("case", RECORDED)
def test_opencv(case: str) -> None:
    """``cv2.resize``: smaller, half as large, larger, and larger in one direction alone."""
    name, width, height = case.split()

    pixels = resize(OF_OPENCV, int(width), int(height), f"cv2-{name}")

    wrong = np.abs(pixels.astype(int) - RECORDED[case])
    assert wrong.max() <= (0 if f"cv2-{name}" in EXACT else 1)
    assert np.count_nonzero(wrong) <= 0.01 * wrong.size


@pytest.mark.tensorflow
@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "area"])
def test_tensorflow(method: str) -> None:
    """``tf.image.resize`` without antialiasing, rounded to whole levels: smaller and larger, even and odd."""
    import tensorflow as tf

    for width, height in [(56, 56), (64, 48), (33, 200), (200, 224)]:
        theirs = tf.image.resize(NOISE[:, :, np.newaxis], (height, width), method).numpy()[:, :, 0]

        pixels = resize(NOISE, width, height, f"tf-{method}")

        assert np.abs(pixels - np.clip(theirs.astype(float), 0, 255)).max() <= 0.51


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("kind", ["BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS"])
def test_pillow(kind: str, image_format: str) -> None:
    """What most people write, to the pixel; the bare names differ from it where an image is twice too large."""
    data = encode(np.tile(NOISE, (2, 2)), image_format)
    theirs = Image.open(io.BytesIO(data)).convert("RGB").resize((56, 64), Image.Resampling[kind])

    pixels = load_pixels(data, InputFormat(64, 56, "rgb", f"pillow-{kind.lower()}")).array

    assert np.array_equal(pixels, np.asarray(theirs))


@pytest.mark.parametrize("name", LIBRARY_FILTERS)
def test_channels_and_bands_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each channel is resized as if it were alone, and large images are, band by band, as small ones are at once."""
    turned = np.stack((NOISE, 255 - NOISE, NOISE[::-1]), axis=2)
    whole = [resize(turned[:, :, channel], 60, 41, name) for channel in range(3)]
    monkeypatch.setattr(module, "BAND_PIXELS", 700)

    pixels = resize(turned, 60, 41, name)

    assert np.array_equal(pixels, np.stack(whole, axis=2))


@pytest.mark.parametrize("name", LIBRARY_FILTERS)
def test_large_image_is_not_copied(name: str) -> None:
    """Beside 16 megapixels a resize takes a few, whether it looks at all of them or not."""
    image = Image.new("L", (4000, 4000), 100)
    tracemalloc.start()
    try:
        pixels = np.asarray(resample(image, (224, 224), name))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert set(np.unique(pixels)) <= {99, 100}  # OpenCV's rounded weights do not always add up to one
    assert peak < 3_000_000


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("name", LIBRARY_FILTERS)
def test_served_pixels_are_those_of_the_library(name: str, image_format: str) -> None:
    """Nothing is shrunk before, on load or by whole numbers, as it is for Pillow's filters."""
    data = encode(np.tile(NOISE, (5, 4)), image_format)
    wanted = InputFormat(56, 64, "grey", resample=name)
    decoded = decode_image(data, wanted).image

    pixels = load_pixels(data, wanted).array

    assert decoded.size == (524, 485)
    assert np.array_equal(pixels[:, :, 0], np.asarray(resample(decoded, (64, 56), name)))
