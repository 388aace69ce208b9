"""The images that all sides of a benchmark judge. Standard library only: load generators run in peers' environments."""

from __future__ import annotations

from pathlib import Path

MOST_IMAGES = 200
"""Enough that caches hold no image by chance, few enough to be read at once."""


def read_images(folder: Path) -> list[bytes]:
    """Returns the encoded PNGs and JPEGs of a folder in the order of their names, at least one."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"bench: no PNG or JPEG in {folder}: give another folder with --images")
    return [path.read_bytes() for path in files[:MOST_IMAGES]]
