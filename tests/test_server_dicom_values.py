"""What stored numbers mean: Hounsfield units of every kind of CT file, and grey levels in a model's windows."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from server.errors import ImageError
from server.images.dicom.file import decode_dicom, read_dicom, read_frame
from server.images.dicom.pixel_format import find_values
from server.images.dicom.window import BRAIN, Window
from server.images.image_file import DEFAULT_LIMITS
from server.images.preprocess import InputFormat, load_pixels
from tests.dicom_files import make_dicom, make_enhanced, make_hu
from tests.fakes import encode

SIDE = 32
BLOOD, BONE = Window(80.0, 200.0), Window(600.0, 2800.0)
PADDING = "padding"


def store(words: list[int]) -> bytes:
    """A square of pixels that begins with these words."""
    return np.resize(np.array(words, "<u2"), SIDE * SIDE).tobytes()


def read_values(data: bytes, frame: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units of a frame [rows, columns], and where it is padding."""
    words, meaning = read_frame(read_dicom(data, DEFAULT_LIMITS), frame)
    values, is_padding = find_values(meaning)
    return values[words], is_padding[words]


def show(data: bytes, *windows: Window, frame: int = 0) -> np.ndarray:
    return np.asarray(decode_dicom(data, windows or (BRAIN,), DEFAULT_LIMITS, frame).image)


STORED: dict[str, tuple[dict[str, object], list[int], list[object]]] = {
    "unsigned": ({}, [0, 1024, 1064, 4095, 65535], [-1024, 0, 40, 3071, 64511]),
    "signed": ({"signed": True, "intercept": 0}, [0xFC18, 0, 40, 0xFFFF], [-1000, 0, 40, -1]),
    "12 bits": ({"bits": 12}, [0, 1024, 4095], [-1024, 0, 3071]),
    "12 bits, others not clean": ({"bits": 12}, [0xF000, 0xA400, 0x1FFF], [-1024, 0, 3071]),
    "12 bits, signed": ({"bits": 12, "signed": True, "intercept": 0}, [0xFC18, 40, 0xF800], [-1000, 40, -2048]),
    "12 bits, sign not extended": (
        {"bits": 12, "signed": True, "intercept": 0},
        [0x0C18, 40, 0x0800, 0x7FFF],
        [-1000, 40, -2048, -1],
    ),
    "slope and intercept": ({"slope": 0.5, "intercept": -1000.25}, [0, 2000, 2081], [-1000.25, -0.25, 40.25]),
    "padding": ({"PixelPaddingValue": 0}, [0, 1024], [PADDING, 0]),
    "padding, signed": (
        {"signed": True, "intercept": 0, "PixelPaddingValue": -2000},
        [0xF830, 0xF831, 40],
        [PADDING, -1999, 40],
    ),
    "padding beyond the bits stored": (
        {"bits": 12, "PixelPaddingValue": 0xF830},
        [0xF830, 0x0830, 1064],
        [PADDING, 1072, 40],
    ),
    "padding in a range": (
        {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 3002},
        [2999, 3000, 3001, 3002, 3003],
        [1975, PADDING, PADDING, PADDING, 1979],
    ),
    "padding in a range from its end": (
        {"PixelPaddingValue": 3002, "PixelPaddingRangeLimit": 3000},
        [2999, 3000, 3002, 3003],
        [1975, PADDING, PADDING, 1979],
    ),
    "a range without a value": ({"PixelPaddingRangeLimit": 3000}, [3000], [1976]),
}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("kind", STORED)
def test_stored_numbers_mean_what_the_header_says(kind: str, syntax: str) -> None:
    """Words as they stand in files, and the Hounsfield units that they are."""
    options, words, wanted = STORED[kind]
    data = make_dicom(np.zeros((SIDE, SIDE)), syntax=syntax, PixelData=store(words), **options)  # type: ignore[arg-type]

    values, is_padding = read_values(data)

    said = [PADDING if padding else value for value, padding in zip(values.flat, is_padding.flat, strict=True)]
    assert said[: len(wanted)] == wanted


def test_window_is_the_models() -> None:
    """Black up to its lower end, white from its upper end on, rounded between; the file's own is never looked at."""
    words = [1024 - 1000, 1024, 1024 + 10, 1024 + 40, 1024 + 79, 1024 + 80, 1024 + 700]
    plain = make_dicom(np.zeros((SIDE, SIDE)), PixelData=store(words))
    other = make_dicom(np.zeros((SIDE, SIDE)), PixelData=store(words), WindowCenter=[300, 40], WindowWidth=[1, 80])

    assert show(plain)[0, : len(words)].tolist() == [0, 0, 32, 128, 252, 255, 255]
    assert np.array_equal(show(plain), show(other))


def test_three_windows_are_three_channels() -> None:
    """In the model's order, each as it would be alone; no colours are noticed in them."""
    data = make_dicom(make_hu())
    three = show(data, BRAIN, BLOOD, BONE)
    pixels = load_pixels(data, InputFormat(96, 96, "rgb", windows=(BRAIN, BLOOD, BONE)))

    assert [np.array_equal(three[:, :, i], show(data, window)) for i, window in enumerate((BRAIN, BLOOD, BONE))] == (
        [True] * 3
    )
    assert np.array_equal(pixels.array, three)
    assert pixels.warnings == ()


def test_padding_is_black_in_every_window() -> None:
    """Though its number may be that of bone, or of brain."""
    data = make_dicom(np.zeros((SIDE, SIDE)), PixelPaddingValue=1024 + 700, PixelData=store([1024 + 700, 1024 + 701]))

    assert show(data)[0, :2].tolist() == [0, 255]
    assert show(data, Window(-1000.0, 100.0))[0, :2].tolist() == [0, 255]


def test_monochrome1_is_inverted_after_the_window() -> None:
    """Grey levels and not numbers change sides, and padding stays black."""
    words = [1024, 1024 + 20, 1024 + 80, 5000]
    data = make_dicom(
        np.zeros((SIDE, SIDE)),
        PhotometricInterpretation="MONOCHROME1",
        PixelPaddingValue=5000,
        PixelData=store(words),
    )

    assert show(data)[0, :4].tolist() == [255, 255 - 64, 0, 0]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("delimited", [False, True], ids=["of known length", "delimited"])
@pytest.mark.parametrize("intercepts", [(), (-1024.0, -500.0, 0.0)], ids=["shared", "per frame"])
def test_enhanced_file_is_read_frame_by_frame(intercepts: tuple[float, ...], delimited: bool, syntax: str) -> None:
    """Rescaling stands in functional groups, shared by all frames or in each, written in either way."""
    hu = np.stack([make_hu(seed=seed) for seed in range(3)])
    data = make_enhanced(np.maximum(hu, 0), intercepts=intercepts, delimited=delimited, syntax=syntax)

    for frame in (1, 2, 3):
        assert np.array_equal(read_values(data, frame)[0], np.maximum(hu[frame - 1], 0))


def test_frame_has_to_be_chosen_where_there_are_several() -> None:
    """Which of them to judge is for people to say."""
    data = make_enhanced(np.stack([make_hu(), make_hu()]))

    for frame, reason in ((0, "IMAGE_MULTI_FRAME"), (3, "IMAGE_FRAME_MISSING")):
        with pytest.raises(ImageError) as refusal:
            show(data, frame=frame)
        assert refusal.value.reason == reason
    assert show(data, frame=2).shape == (96, 96)
    assert np.array_equal(show(make_dicom(make_hu()), frame=1), show(make_dicom(make_hu())))


def test_dicom_and_an_export_in_the_models_window_are_the_same_to_a_model() -> None:
    """Pixels for a model are equal to the last bit, whatever it does to them, so its answers are."""
    hu = make_hu(side=200)
    exported = np.clip(np.rint(hu * (255 / 80)), 0, 255).astype(np.uint8)
    for colour, resample, fit in (("grey", "bilinear", "stretch"), ("rgb", "tf-bilinear", "pad")):
        wanted = InputFormat(64, 64, colour, resample, fit, (BRAIN,))

        of_dicom, of_png = (load_pixels(data, wanted) for data in (make_dicom(hu), encode(exported)))

        assert np.array_equal(of_dicom.array, of_png.array)
        assert of_dicom.warnings == of_png.warnings
