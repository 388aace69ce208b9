"""The images of a training run: which files there are, and their decoded pixels on disk.

Decoding is the server's (``server.preprocess``). Pixels are decoded once into an unnamed file, which the operating
system removes however the run ends, and read batch by batch, so that memory does not grow with the folder.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.errors import ImageError
from server.preprocess import InputFormat, load_pixels
from training.errors import TrainingError
from training.models import IMAGE_SIZE
from training.phantom import LESION_FOLDER

INPUT_FORMAT = InputFormat(IMAGE_SIZE, IMAGE_SIZE, "grey", "bilinear", "stretch")
"""CT has no colours: the networks' three channels get the same values, and the converter folds them into one."""
SUFFIXES = (".png", ".jpg", ".jpeg")
CHUNK = 256
"""Images between two reports of progress."""


@dataclass(frozen=True)
class ImageFolder:
    """A folder per class, listed."""

    root: Path

    labels: tuple[str, ...]
    """The class folders' names, sorted: the order of the model's output."""

    files: tuple[str, ...]
    """Paths below ``root`` with forward slashes, sorted."""

    targets: NDArray[np.int64]
    """[N], index into ``labels`` of each file."""

    ignored: int
    """Files in class folders that are neither PNG nor JPEG by name."""

    @property
    def has_lesions(self) -> bool:
        """Whether lesion masks lie beside the class folders; an image without one has no lesion."""
        return (self.root / LESION_FOLDER).is_dir()


def list_images(root: Path) -> ImageFolder:
    """Lists a folder that has one folder of images per class.

    Raises:
        TrainingError: when it is not such a folder, or not of two classes with images.
    """
    if not root.is_dir():
        raise TrainingError(f"{root} is not a folder; --data needs one with a folder of images per class")
    class_folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [list_files(folder) for folder in class_folders]
    if not any(images for images, _ in found):
        raise TrainingError(f"{root} has no PNG or JPEG images in folders below it, one folder per class")
    empty = [folder.name for folder, (images, _) in zip(class_folders, found, strict=True) if not images]
    if empty:
        raise TrainingError(f"{root}: the class folder {', '.join(empty)} has no PNG or JPEG images")
    if len(class_folders) != 2:
        names = ", ".join(folder.name for folder in class_folders)
        raise TrainingError(f"{root} has {len(class_folders)} class(es) ({names}); the networks tell two apart")
    labelled = sorted(
        (path.relative_to(root).as_posix(), target) for target, (images, _) in enumerate(found) for path in images
    )
    return ImageFolder(
        root,
        labels=tuple(folder.name for folder in class_folders),
        files=tuple(file for file, _ in labelled),
        targets=np.array([target for _, target in labelled], np.int64),
        ignored=sum(others for _, others in found),
    )


def list_files(folder: Path) -> tuple[list[Path], int]:
    """Returns the images at any depth of a class folder, and the number of its other visible files."""
    visible = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    images = [path for path in visible if path.suffix.lower() in SUFFIXES]
    return images, len(visible) - len(images)


class PixelStore:
    """Decoded images in an unnamed file: fixed size, read and written by position, from any thread.

    Each image has one plane of grey values and, where the data set has lesion masks, one more with its mask.
    Plain reads rather than a memory map: mapped pages count as the process's memory, up to the size of the folder.
    """

    def __init__(self, folder: Path, count: int, *, has_lesions: bool = False) -> None:
        self.has_lesions = has_lesions
        self.planes = 1 + has_lesions
        self._shape = (INPUT_FORMAT.height, INPUT_FORMAT.width, self.planes)
        self._bytes = int(np.prod(self._shape))
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
        if os.pwrite(self._file.fileno(), pixels.tobytes(), index * self._bytes) != self._bytes:
            raise TrainingError("the disk is full: the decoded pixels do not fit beside the run folder")

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Reads images, uint8 [len(indices), H, W, planes]."""
        images = np.empty((len(indices), *self._shape), np.uint8)
        for image, index in zip(images, indices, strict=True):
            data = os.pread(self._file.fileno(), self._bytes, int(index) * self._bytes)
            image[:] = np.frombuffer(data, np.uint8).reshape(self._shape)
        return images


def decode_images(
    images: ImageFolder, folder: Path, progress: Callable[[int, int], None]
) -> tuple[PixelStore, tuple[str, ...]]:
    """Decodes all images into a store in ``folder``; the caller closes it.

    Returns:
        The store, and the SHA-256 of each file's bytes.

    Raises:
        TrainingError: naming the first file that cannot be decoded.
    """
    store = PixelStore(folder, len(images.files), has_lesions=images.has_lesions)

    def decode(index: int) -> str:
        data, pixels = read_image(images.root / images.files[index])
        if store.has_lesions:
            mask = images.root / LESION_FOLDER / images.files[index]
            lesion = read_image(mask)[1] if mask.exists() else np.zeros_like(pixels)
            pixels = np.concatenate([pixels, lesion], axis=2)
        store.write(index, pixels)
        return hashlib.sha256(data).hexdigest()

    count = len(images.files)
    digests: list[str] = []
    try:
        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            while len(digests) < count:
                digests += pool.map(decode, range(len(digests), min(len(digests) + CHUNK, count)))
                progress(len(digests), count)
    except BaseException:
        store.__exit__()
        raise
    return store, tuple(digests)


def read_image(path: Path) -> tuple[bytes, NDArray[np.uint8]]:
    """Returns a file's bytes and its pixels as the server decodes them, uint8 [H, W, 1].

    Raises:
        TrainingError: naming the file, when it cannot be decoded.
    """
    data = path.read_bytes()
    try:
        return data, load_pixels(data, INPUT_FORMAT).array
    except ImageError as error:
        raise TrainingError(f"{path}: {error.message}") from None


def compute_fingerprint(files: Sequence[str], digests: Sequence[str]) -> str:
    """Returns the SHA-256 over sorted lines ``<SHA-256 of the file>  <path>``, as ``sha256sum`` prints them."""
    lines = sorted(f"{digest}  {file}\n" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a CSV file with Unix line ends."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
