"""Transfer syntaxes: how the pixels of a DICOM file are written, and which of them are read (PS3.5, chapter 10)."""

from __future__ import annotations

from server.images.dicom import refusals

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4"
JPEG_EXTENDED = f"{JPEG}.51"

NATIVE = frozenset((IMPLICIT, EXPLICIT))
"""Pixels stand in the file as they are."""

COMPRESSED = {
    "1.2.840.10008.1.2.5": "RLE Lossless",
    f"{JPEG}.57": "JPEG Lossless",
    f"{JPEG}.70": "JPEG Lossless (first-order prediction)",
    f"{JPEG}.80": "JPEG-LS Lossless",
    f"{JPEG}.81": "JPEG-LS Near-lossless",
    f"{JPEG}.90": "JPEG 2000 Lossless",
    f"{JPEG}.91": "JPEG 2000",
    f"{JPEG}.201": "High-Throughput JPEG 2000 Lossless",
    f"{JPEG}.202": "High-Throughput JPEG 2000 Lossless (RPCL)",
    f"{JPEG}.203": "High-Throughput JPEG 2000",
}
"""Pixels that a decoder unpacks, and what the standard calls the way they are packed."""

LOSSY = frozenset((f"{JPEG}.81", f"{JPEG}.91", f"{JPEG}.203"))
"""Those that lose detail, or may."""


def check_readable(syntax: str) -> None:
    """Refuses what cannot even be read up to the pixels."""
    if syntax == BIG_ENDIAN:
        raise refusals.big_endian()
    if syntax == DEFLATED:
        raise refusals.deflated()


def check_compressed(syntax: str) -> None:
    """Refuses pixels that no decoder here unpacks."""
    if syntax == JPEG_EXTENDED:
        raise refusals.jpeg_12_bit()
    if syntax not in COMPRESSED:
        raise refusals.no_decoder("", can_be_installed=False)
