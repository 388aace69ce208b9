"""The images of a training run: their decoded pixels on disk.

Decoding is the server's (``server.images.preprocess``). Pixels are decoded once into an unnamed file, which the
operating system removes however the run ends, and read batch by batch, so that memory does not grow with the folder.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.errors import ImageError
from server.images.preprocess import InputFormat, load_pixels
from server.machine.processors import count_processors
from training.data.duplicates import SIDE, shrink
from training.data.format import INPUT_FORMAT
from training.data.labels import ImageSet
from training.errors import TrainingError, count_nouns
from training.phantom.dataset import LESION_FOLDER

CHUNK = 256
"""Images between two reports of progress."""


class UndecodableError(TrainingError):
    """An image cannot be decoded; ``reason`` says why, without its name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class PixelStore:
    """Decoded images in an unnamed file: fixed size, read and written by position, from any thread.

    Each image has a plane of grey values, or three of as many windows, and, where the data set has lesion masks, one
    more with its mask.
    Plain reads rather than a memory map: mapped pages count as the process's memory, up to the size of the folder.

    Attributes:
        small: uint8 [N, 1024], the first planes at 32 x 32 pixels, to compare them with each other. In memory, 1 KB an
            image, until that was done.
    """

    def __init__(self, folder: Path, count: int, *, channels: int = 1, has_lesions: bool = False) -> None:
        self.has_lesions = has_lesions
        self.channels = channels
        self.planes = channels + has_lesions
        self._shape = (INPUT_FORMAT.height, INPUT_FORMAT.width, self.planes)
        self._bytes = int(np.prod(self._shape))
        self.small = np.zeros((count, SIDE**2), np.uint8)
        free = shutil.disk_usage(folder).free
        if count * self._bytes > free:
            raise TrainingError(
                f"the decoded pixels of {count:,} images need {count * self._bytes / 1e9:.1f} GB beside the run "
                f"folder, {free / 1e9:.1f} GB are free"
            )
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> PixelStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, index: int, pixels: NDArray[np.uint8]) -> None:
        """Writes one image, uint8 [H, W, planes]."""
        try:
            written = os.pwrite(self._file.fileno(), pixels.tobytes(), index * self._bytes)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            written = 0
        if written != self._bytes:
            raise TrainingError("the disk is full: the decoded pixels do not fit beside the run folder")
        self.small[index] = np.rint(shrink(pixels[np.newaxis, :, :, 0])[0])

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Reads images, uint8 [len(indices), H, W, planes]."""
        images = np.empty((len(indices), *self._shape), np.uint8)
        for image, index in zip(images, indices.tolist(), strict=True):
            if os.preadv(self._file.fileno(), [image.data], index * self._bytes) != self._bytes:
                raise OSError(errno.EIO, "the decoded pixels could not be read back")
        return images


def decode_images(
    images: ImageSet, folder: Path, progress: Callable[[int, int], None], input_format: InputFormat = INPUT_FORMAT
) -> tuple[PixelStore, tuple[str, ...]]:
    """Decodes all images into a store in ``folder``; the caller closes it.

    Args:
        images: the images.
        folder: where the store lies.
        progress: called with how many are decoded, of how many.
        input_format: as which pixels.

    Returns:
        The store, and the SHA-256 of each file's bytes.

    Raises:
        TrainingError: naming the first file that cannot be decoded, and counting all by what is wrong with them.
    """
    store = PixelStore(folder, len(images.files), channels=input_format.channels, has_lesions=images.has_lesions)

    refused: dict[int, UndecodableError] = {}

    def decode(index: int) -> str:
        path, digest = images.root / images.files[index], ""
        try:
            data, pixels = read_image(path, input_format)
            digest = hashlib.sha256(data).hexdigest()
            if store.has_lesions:
                mask = find_mask(images.root / LESION_FOLDER / images.files[index])
                lesion = read_image(mask)[1] if mask else np.zeros_like(pixels[..., :1])
                pixels = np.concatenate([pixels, lesion], axis=2)
        except UndecodableError as error:
            refused[index] = error
            return digest
        store.write(index, pixels)
        return digest

    count = len(images.files)
    digests: list[str] = []
    try:
        with ThreadPoolExecutor(max_workers=count_processors()) as pool:
            while len(digests) < count:
                digests += pool.map(decode, range(len(digests), min(len(digests) + CHUNK, count)))
                progress(len(digests), count)
        if len(refused) > 1:
            reasons = count_reasons(error.reason for error in refused.values())
            raise TrainingError(
                f"{len(refused):,} of {count_nouns(count, 'image')} cannot be decoded ({reasons}); the first: "
                f"{refused[min(refused)]}"
            )
        if refused:
            raise refused.popitem()[1]
    except BaseException:
        store.__exit__()
        raise
    return store, tuple(digests)


def count_reasons(reasons: Iterable[str]) -> str:
    """Returns ``12 x The image has 16 bits a channel, 2 x The image is damaged``, the most frequent first."""
    # The first clause says what is wrong; what follows is advice.
    kinds = Counter(re.split(r"[.:;,](?: |$)", reason)[0] for reason in reasons)
    return ", ".join(f"{count:,} x {kind}" for kind, count in kinds.most_common())


def find_mask(path: Path) -> Path | None:
    """Returns the lesion mask that has an image's name, or that name with .png; None where there is none."""
    return next((mask for mask in (path, path.with_suffix(".png")) if mask.exists()), None)


def read_image(path: Path, input_format: InputFormat = INPUT_FORMAT) -> tuple[bytes, NDArray[np.uint8]]:
    """Returns a file's bytes and its pixels as the server decodes them, uint8 [H, W, channels].

    Raises:
        UndecodableError: naming the file, when it cannot be decoded.
    """
    data = path.read_bytes()
    try:
        return data, load_pixels(data, input_format).array
    except ImageError as error:
        raise UndecodableError(path, error.message) from None


def compute_fingerprint(files: Sequence[str], digests: Sequence[str]) -> str:
    """Returns the SHA-256 over sorted lines ``<SHA-256 of the file>  <path>``, as ``sha256sum`` prints them."""
    lines = sorted(f"{digest}  {file}\n" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a CSV file with Unix line ends; whole, or what was there before."""
    new = path.with_name(path.name + ".new")
    with new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    new.replace(path)
