"""What the files of a data set are: read once each, in threads, keeping a kilobyte of every image."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.images.dicom.optional import read_header as read_dicom_header
from server.images.dicom.signature import is_dicom
from server.images.image_file import DEFAULT_LIMITS
from server.images.jpeg_file import read_jpeg
from server.images.png_file import PNG_MODES, read_png
from server.images.preprocess import InputFormat, find_format
from server.machine.processors import count_processors
from training.data.duplicates import SIDE, shrink
from training.data.labels import ImageSet
from training.data.pixels import CHUNK, UndecodableError, read_image

BLACK = 8
"""Highest grey value of a black border: JPEG leaves a few levels of noise in black."""


@dataclass(frozen=True)
class FileFacts:
    """What is known of one readable image."""

    digest: str
    file_bytes: int
    size: tuple[int, int]
    """Width and height as stored, in pixels."""

    mode: str
    """Pillow's name of the colour mode; ``CT`` for CT values."""

    tables: str
    """First digits of the SHA-256 of a JPEG's first quantisation table, which stands for program and quality; 'PNG',
    'DICOM' or 'lossless' where there is none."""

    brightness: float
    """Mean grey value, 0 to 255."""

    border: float
    """Share of rows and columns, from the edges inwards, that are black, in [0, 1]."""

    small: NDArray[np.uint8]
    """[1024], the image at 32 x 32 pixels."""


@dataclass(frozen=True)
class Inspection:
    """The readable images of a set and what is wrong with the others."""

    kept: NDArray[np.int64]
    """Positions of the readable images in the set."""

    facts: tuple[FileFacts, ...]
    """In the order of ``kept``."""

    unreadable: tuple[tuple[str, str], ...]
    """File and reason."""


def inspect_images(images: ImageSet, input_format: InputFormat, progress: Callable[[int, int], None]) -> Inspection:
    """Reads every image; one that cannot be decoded is kept aside with its reason."""
    count = len(images.files)
    results: list[FileFacts | str] = []
    with ThreadPoolExecutor(max_workers=count_processors()) as pool:
        while len(results) < count:
            part = images.files[len(results) : len(results) + CHUNK]
            results += pool.map(lambda file: inspect_file(images, file, input_format), part)
            progress(len(results), count)
    return Inspection(
        np.array([index for index, result in enumerate(results) if isinstance(result, FileFacts)], np.int64),
        tuple(result for result in results if isinstance(result, FileFacts)),
        tuple((file, result) for file, result in zip(images.files, results, strict=True) if isinstance(result, str)),
    )


def inspect_file(images: ImageSet, file: str, input_format: InputFormat) -> FileFacts | str:
    """Returns the facts about one image, or why it cannot be decoded."""
    path = images.root / file
    try:
        data, pixels = read_image(path, input_format)
    except UndecodableError as error:
        return error.reason
    except OSError as error:
        return error.strerror or "cannot be read"
    grey = pixels[:, :, 0]
    size, mode, tables = read_header(data)
    return FileFacts(
        digest=hashlib.sha256(data).hexdigest(),
        file_bytes=len(data),
        size=size,
        mode=mode,
        tables=tables,
        brightness=float(grey.mean()),
        border=measure_border(grey),
        small=np.rint(shrink(grey[np.newaxis])[0]).astype(np.uint8).reshape(SIDE**2),
    )


def read_header(data: bytes) -> tuple[tuple[int, int], str, str]:
    """Returns size, mode and digest of the tables of a file that was decoded: of what its pixels need, for Pillow alone
    refuses some files for their metadata."""
    if is_dicom(data):
        (header, *_) = read_dicom_header(data, DEFAULT_LIMITS)
        return (header.columns, header.rows), "CT", "DICOM"
    if find_format(data) == "PNG":
        png = read_png(data, DEFAULT_LIMITS)
        return (png.width, png.height), PNG_MODES[png.colour], "PNG"
    with Image.open(io.BytesIO(read_jpeg(data, DEFAULT_LIMITS).stream), formats=("JPEG",)) as image:
        tables = getattr(image, "quantization", None)  # the first is that of the luma, which grey images have as well
        digest = hashlib.sha256(repr(list(tables[0])).encode()).hexdigest()[:8] if tables else "lossless"
        return image.size, image.mode, digest


def measure_border(grey: NDArray[np.uint8]) -> float:
    """Returns the share of the rows and columns of an image [H, W] that are black from an edge inwards."""
    black = 0
    for axis in (0, 1):
        bright = np.flatnonzero(grey.max(axis=1 - axis) > BLACK)
        black += grey.shape[axis] - (int(bright[-1] - bright[0]) + 1 if len(bright) else 0)
    return black / sum(grey.shape)
