"""A file in a syntax for which there is no encoder among the libraries here."""

from __future__ import annotations

from pathlib import Path

from bench.dicom.frames import JPEG
from server.images.dicom.header import FrameShape

HTJ2K = (f"{JPEG}.201", f"{JPEG}.202", f"{JPEG}.203")


def read_htj2k() -> tuple[FrameShape, bytes]:
    """High-Throughput JPEG 2000 that holds ``make_words`` of a shape, written by OpenJPH 0.26 (imagecodecs)."""
    return FrameShape(64, 80, 16, True), (Path(__file__).parent / "htj2k_lossless.j2c").read_bytes()
