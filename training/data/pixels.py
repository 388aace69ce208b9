"""The images of a training run: which files there are, and their decoded pixels on disk.

Decoding is the server's (``server.images.preprocess``). Pixels are decoded once into an unnamed file, which the
operating system removes however the run ends, and read batch by batch, so that memory does not grow with the folder.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.errors import ImageError
from server.images.preprocess import InputFormat, load_pixels
from server.machine.processors import count_processors
from training.config import DEFAULT_PATIENT_PATTERN, ListingConfig
from training.data.labels import LABELS_FILE, find_patients, read_class_folders, read_table
from training.data.thumbnails import SIDE, shrink
from training.errors import TrainingError
from training.fit.models import IMAGE_SIZE
from training.phantom.dataset import LESION_FOLDER

INPUT_FORMAT = InputFormat(IMAGE_SIZE, IMAGE_SIZE, "grey", "bilinear", "stretch")
"""CT has no colours: the networks' three channels get the same values, and the converter folds them into one."""
CHUNK = 256
"""Images between two reports of progress."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of two classes, listed."""

    root: Path

    labels: tuple[str, ...]
    """The classes' names, sorted: the order of the model's output."""

    files: tuple[str, ...]
    """Paths below ``root`` with forward slashes, sorted."""

    targets: NDArray[np.int64]
    """[N], index into ``labels`` of each file."""

    patients: tuple[str | None, ...]
    """Who each image shows: from labels.csv, or else from its name; the image itself where each shows another person;
    None where that is not known."""

    ignored: int = 0
    """Files that were left out, see ``warnings``."""

    notes: tuple[str, ...] = ()
    """How the folder was read, where that may surprise."""

    warnings: tuple[str, ...] = ()
    """What may be wrong with it."""

    @property
    def has_patients(self) -> bool:
        """Whether it is known of every image who it shows; otherwise leakage cannot be excluded."""
        return None not in self.patients

    @property
    def has_lesions(self) -> bool:
        """Whether lesion masks lie beside the images; an image without one has no lesion."""
        return (self.root / LESION_FOLDER).is_dir()


def list_data(config: ListingConfig) -> ImageSet:
    """Lists the data of a command, and says on the terminal how they were read.

    Raises:
        TrainingError: as ``list_images``.
    """
    images = list_images(
        config.data,
        label_column=config.label_column,
        exclude_column=config.exclude_column,
        patient_pattern=config.patient_pattern,
        one_image_per_patient=config.one_image_per_patient,
    )
    for note in images.notes:
        print(note, file=sys.stderr)
    return images


def list_images(
    root: Path,
    *,
    label_column: str = ListingConfig.label_column,
    exclude_column: str | None = None,
    patient_pattern: str = DEFAULT_PATIENT_PATTERN,
    one_image_per_patient: bool = False,
) -> ImageSet:
    """Lists a folder that has a ``labels.csv``, or one folder of images per class.

    Args:
        root: the folder.
        label_column: column of labels.csv with the label.
        exclude_column: column of labels.csv that marks images to leave out with 1.
        patient_pattern: finds the patient in a file's name, where labels.csv does not say who it is.
        one_image_per_patient: states that no two images show the same person.

    Raises:
        TrainingError: when it is not such a folder, or not of two classes with images.
    """
    if not root.is_dir():
        raise TrainingError(
            f"{root} is not a folder; --data needs one with a labels.csv or with a folder of images per class"
        )
    if (root / LABELS_FILE).exists():
        listing = read_table(root, label_column, exclude_column)
    elif exclude_column or label_column != ListingConfig.label_column:
        raise TrainingError(f"{root} has no {LABELS_FILE}, which --label-column and --exclude-column are about")
    else:
        listing = read_class_folders(root)
    labelled = sorted(listing.files, key=lambda entry: entry.file)
    labels = sorted({entry.label for entry in labelled})
    if len(labels) != 2:
        classes = f"1 class ({labels[0]})" if len(labels) == 1 else f"{len(labels)} classes ({', '.join(labels[:5])})"
        raise TrainingError(f"{root} has {classes}; the networks tell two apart")
    files = [entry.file for entry in labelled]
    if listing.has_patients:
        patients = [entry.patient for entry in labelled]
    elif one_image_per_patient:
        patients = list(files)
    else:
        patients = find_patients(files, patient_pattern)
    return ImageSet(
        root,
        labels=tuple(labels),
        files=tuple(files),
        targets=np.array([labels.index(entry.label) for entry in labelled], np.int64),
        patients=tuple(patients),
        ignored=listing.ignored,
        notes=tuple(listing.notes),
        warnings=tuple(listing.warnings),
    )


class PixelStore:
    """Decoded images in an unnamed file: fixed size, read and written by position, from any thread.

    Each image has one plane of grey values and, where the data set has lesion masks, one more with its mask.
    Plain reads rather than a memory map: mapped pages count as the process's memory, up to the size of the folder.

    Attributes:
        small: uint8 [N, 1024], the images at 32 x 32 pixels, to compare them with each other. In memory: 1 KB an image.
    """

    def __init__(self, folder: Path, count: int, *, has_lesions: bool = False) -> None:
        self.has_lesions = has_lesions
        self.planes = 1 + has_lesions
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
            if os.preadv(self._file.fileno(), [image], index * self._bytes) != self._bytes:
                raise OSError(errno.EIO, "the decoded pixels could not be read back")
        return images


def decode_images(
    images: ImageSet, folder: Path, progress: Callable[[int, int], None]
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
        with ThreadPoolExecutor(max_workers=count_processors()) as pool:
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
    """Writes a CSV file with Unix line ends; whole, or what was there before."""
    new = path.with_name(path.name + ".new")
    with new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    new.replace(path)
