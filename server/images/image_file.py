"""What is known of an image file before any decoder sees it: its format by magic bytes, the limits, and the refusals.

``server.images.png_file`` and ``server.images.jpeg_file`` go on from here: they walk a file of their format once and
take from it what the pixels need.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import ImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

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
    """Width times height, in pixels: bounds the memory of one decode to about 13 bytes a pixel."""


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


def find_format(data: bytes) -> str:
    """Returns ``PNG`` or ``JPEG`` by magic bytes."""
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data.startswith(JPEG_SIGNATURE):
        return "JPEG"
    if data[128:132] == b"DICM":
        kind = "a DICOM file: export the slice with a brain window"
    else:
        kind = next((name for magic, name in OTHER_FORMATS if data.startswith(magic)), "in no known image format")
    raise ImageError("IMAGE_UNDECODABLE", f"The file is {kind}. Only PNG and JPEG are accepted.")


def check_dimensions(width: int, height: int, limits: ImageLimits) -> None:
    """Applies the limits to the size that a header states, before a pixel is decoded."""
    if min(width, height) < limits.min_side:
        raise ImageError(
            "IMAGE_TOO_SMALL",
            f"The image is {width} x {height} pixels; at least {limits.min_side} a side are needed. "
            "Send the slice itself, not its thumbnail.",
        )
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise ImageError(
            "IMAGE_TOO_LARGE",
            f"The image is {width} x {height} pixels; at most {limits.max_side} a side and {limits.max_pixels:,} "
            "in all are accepted. Export the single slice at its own resolution.",
        )


def check_frames(frames: int) -> None:
    """Refuses a file of several images: which of them to judge is for people to say."""
    if frames != 1:
        raise ImageError(
            "IMAGE_MULTI_FRAME", f"The file holds {frames} images. Export the one slice that is to be judged."
        )


def deep_image(bits: int) -> ImageError:
    """More than 8 bits: what decoders make of that (clip, or drop bits) is not what a reader would look at."""
    return ImageError(
        "IMAGE_BIT_DEPTH",
        f"The image has {bits} bits a channel: raw CT values need a window before they can be judged. "
        "Export it as 8-bit PNG or JPEG with a brain window (level 40, width 80).",
    )


def shallow_image(bits: int) -> ImageError:
    return ImageError(
        "IMAGE_BIT_DEPTH",
        f"The image has {bits} bit a pixel, too few grey levels to judge. Export it as 8-bit PNG or JPEG.",
    )


def undecodable_image() -> ImageError:
    """There is no image to be found in the file."""
    return ImageError(
        "IMAGE_UNDECODABLE", "The image is damaged and cannot be decoded. Export it again, or copy it again."
    )


def unsupported_image(kind: str) -> ImageError:
    """Nothing is wrong with the file; it is of a kind that is not decoded here."""
    return ImageError(
        "IMAGE_UNDECODABLE",
        f"The file is {kind}, which is not supported. Export it as 8-bit PNG; raw CT values "
        "need a brain window (level 40, width 80) first.",
    )


def overcrowded_image(what: str) -> ImageError:
    """Decoding would cost far more time than any honest file of this size."""
    return ImageError("IMAGE_UNDECODABLE", f"The file has {what}, which no camera or viewer writes. Export it again.")


def damaged_image() -> ImageError:
    """There is an image, but not the one that was written: a checksum or the coded data say so."""
    return ImageError(
        "IMAGE_DAMAGED", "The image is damaged: its data changed after it was written. Copy or export it again."
    )


def truncated_image() -> ImageError:
    return ImageError("IMAGE_TRUNCATED", "The image file ends too early. Copy or export it again.")
