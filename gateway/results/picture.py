"""The slice to look at first as a picture: the study's own pixels in the model's window, with nothing drawn on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from client import Window

DECODERS = {ExplicitVRLittleEndian: "", ImplicitVRLittleEndian: "", RLELossless: "pydicom"}
"""What is drawn, and by what: pydicom alone. Codecs are of languages in which a broken file ends the process, and the
study that has ended it comes again."""

MOST_PIXELS = 2048 * 2048
"""Four times the largest matrix of CT scanners; four bytes each while they are drawn."""

_TAGS = (
    *("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "BurnedInAnnotation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "PixelRepresentation"),
    *("ImageOrientationPatient", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_MOSTLY = 0.7
"""Of the cosine between rows and the line from right to left of a patient, for them to be said to run along it."""


class PictureError(Exception):
    """The slice cannot be drawn; the message says why, and repeats nothing of the file."""


class Picture(NamedTuple):
    """A slice as people see it."""

    pixels: NDArray[np.uint8]
    """[rows, columns]."""

    left: str
    """The side of the patient on its left, ``right`` or ``left``; empty: that is not known."""


def read_picture(path: Path, frame: int, window: Window) -> Picture:
    """Reads a slice.

    Args:
        path: its file, which the server has judged.
        frame: from 1; 0: the only one.
        window: grey levels of its CT values.

    Raises:
        PictureError: it cannot be drawn.
    """
    try:
        index = max(frame, 1) - 1
        syntax = read_file_meta_info(path).TransferSyntaxUID
        if syntax not in DECODERS:
            raise PictureError(f"its pixels are compressed ({syntax.name})")
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        _check(header)
        stored = pixel_array(path, index=index, decoding_plugin=DECODERS[syntax])
        pixels = _apply_window(stored, header, _find(header, index, "PixelValueTransformationSequence"), window)
        return Picture(pixels, _name_left(_find(header, index, "PlaneOrientationSequence")))
    except PictureError:
        raise
    except Exception as error:  # of a library, at a file that nobody has thought of: there are results without it
        raise PictureError("it cannot be read") from error


def _check(header: Dataset) -> None:
    if header.get("BurnedInAnnotation") == "YES":
        raise PictureError("letters are part of its pixels, which may name the patient")
    if header.Rows * header.Columns > MOST_PIXELS:
        raise PictureError(f"it has more than {MOST_PIXELS:,} pixels")
    if header.SamplesPerPixel != 1 or header.BitsAllocated != 16:
        raise PictureError("its pixels are not those of a CT image")


def _apply_window(stored: NDArray[Any], header: Dataset, rescale: Dataset, window: Window) -> NDArray[np.uint8]:
    """Grey levels of stored values, linearly between the ends of the window; what is no value is black."""
    values = stored.astype(np.float32) * float(rescale.RescaleSlope) + float(rescale.RescaleIntercept)
    levels = (values - (window.level - window.width / 2)) * (255 / window.width)
    grey: NDArray[np.uint8] = np.clip(np.rint(np.nan_to_num(levels)), 0, 255).astype(np.uint8)
    if header.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    ends = [header.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if isinstance(ends[0], int):
        numbers = [one for one in ends if isinstance(one, int)]
        grey[(min(numbers) <= stored) & (stored <= max(numbers))] = 0
    return grey


def _name_left(plane: Dataset) -> str:
    along = float(plane.get("ImageOrientationPatient", [0])[0])  # of a row, towards the patient's left
    return "right" if along > _MOSTLY else "left" if along < -_MOSTLY else ""


def _find(header: Dataset, index: int, group: str) -> Dataset:
    """Where it stands what a group says of a frame: with the frame, with all frames, or in the file itself."""
    own = header.get("PerFrameFunctionalGroupsSequence", [])[index : index + 1]
    for groups in (*own, *header.get("SharedFunctionalGroupsSequence", [])[:1]):
        if group in groups:
            found: Dataset = groups[group][0]
            return found
    return header
