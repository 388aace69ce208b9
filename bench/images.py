"""The images that all sides of a benchmark judge. Standard library only: load generators run in peers' environments."""

from __future__ import annotations

from pathlib import Path

from server.images.dicom.signature import is_dicom
from server.images.image_folder import list_folder

MOST_IMAGES = 200
"""Enough that caches hold no image by chance, few enough to be read at once."""


def read_images(folder: Path) -> list[bytes]:
    """Returns the encoded PNGs and JPEGs of a folder in the order of their names, at least one; peers read no DICOM."""
    try:
        files = list_folder(folder).images
    except OSError as error:
        raise SystemExit(f"bench: {folder} cannot be read: {error.strerror}") from None
    images = [data for path in files[:MOST_IMAGES] if not is_dicom(data := path.read_bytes())]
    if not images:
        raise SystemExit(f"bench: no PNG or JPEG in {folder}: give another folder with --images")
    return images
