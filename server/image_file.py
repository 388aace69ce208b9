"""What the bytes of an image file must be before any decoder sees them: size, format by magic bytes, header, end."""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import ImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
JPEG_SIGNATURE = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
JPEG_SCAN = b"\xff\xda"
MAX_JPEG_SCANS = 100
"""A progressive JPEG has about 10 (libjpeg's standard script). Each costs a pass over all pixels and as little as 42
bytes of file, so a small file could keep a worker busy for an hour."""

PNG_HEADER_START = b"\0\0\0\rIHDR"
PNG_HEADER_BYTES = 33  # signature 8, IHDR: length 4, name 4, data 13, CRC 4 (PNG specification, 11.2.2)
PNG_BIT_DEPTH_OFFSET = 24

OTHER_FORMATS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"RIFF", "a WebP or another RIFF file"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
)


@dataclass(frozen=True)
class ImageLimits:
    """What an image may be. Bounds are inclusive."""

    max_bytes: int = 8 * 1024 * 1024
    """Size of the encoded file, in bytes."""

    min_side: int = 32
    """Shorter side, in pixels."""

    max_side: int = 8192
    """Longer side, in pixels."""

    max_pixels: int = 25_000_000
    """Width times height, in pixels: bounds the memory of one decode to about 16 bytes a pixel."""


DEFAULT_LIMITS = ImageLimits()


def check_size(data: bytes, limits: ImageLimits) -> None:
    """Refuses an empty and a too large file: the check that costs nothing, to be made before any other."""
    if not data:
        raise ImageError("IMAGE_EMPTY", "The image is empty (0 bytes): check that the export finished.")
    if len(data) > limits.max_bytes:
        raise ImageError(
            "IMAGE_TOO_LARGE",
            f"The file has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted. "
            "Export the single slice as 8-bit PNG or JPEG.",
        )


def check_container(data: bytes, limits: ImageLimits) -> str:
    """Returns ``PNG`` or ``JPEG`` by magic bytes, after the checks that need no decoder."""
    check_size(data, limits)
    if data.startswith(PNG_SIGNATURE):
        check_png(data)
        return "PNG"
    if data.startswith(JPEG_SIGNATURE):
        if JPEG_END not in data:
            raise truncated_image()
        if data.count(JPEG_SCAN) > MAX_JPEG_SCANS:
            raise ImageError(
                "IMAGE_UNDECODABLE",
                f"The JPEG has more than {MAX_JPEG_SCANS} passes, which no camera or viewer writes. Export it again.",
            )
        return "JPEG"
    if data[128:132] == b"DICM":
        kind = "a DICOM file: export the slice with a brain window"
    else:
        kind = next((name for magic, name in OTHER_FORMATS if data.startswith(magic)), "in no known image format")
    raise ImageError("IMAGE_UNDECODABLE", f"The file is {kind}. Only PNG and JPEG are accepted.")


def check_png(data: bytes) -> None:
    """Refuses the PNGs that Pillow would silently change: 16-bit ones, which it clips or cuts to 8 bits."""
    if len(data) < PNG_HEADER_BYTES or PNG_END not in data:
        raise truncated_image()
    if data[len(PNG_SIGNATURE) :][: len(PNG_HEADER_START)] != PNG_HEADER_START:
        raise undecodable_image()
    bits = data[PNG_BIT_DEPTH_OFFSET]
    is_palette = data[PNG_BIT_DEPTH_OFFSET + 1] == 3
    if bits == 16:
        raise sixteen_bit_image()
    if bits < 8 and not is_palette:
        raise ImageError(
            "IMAGE_BIT_DEPTH",
            f"The image has {bits} bit a pixel, too few grey levels to judge. Export it as 8-bit PNG or JPEG.",
        )


def sixteen_bit_image() -> ImageError:
    return ImageError(
        "IMAGE_BIT_DEPTH",
        "The image has 16 bits a channel: raw CT values need a window before they can be judged. "
        "Export it as 8-bit PNG or JPEG with a brain window (level 40, width 80).",
    )


def undecodable_image() -> ImageError:
    return ImageError(
        "IMAGE_UNDECODABLE", "The image is damaged and cannot be decoded. Export it again, or copy it again."
    )


def truncated_image() -> ImageError:
    return ImageError("IMAGE_TRUNCATED", "The image file ends too early. Copy or export it again.")
