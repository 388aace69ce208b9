"""What an image file may be, whatever its format, what becomes of it, and the refusals of one that is not so, each with
its reason."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from server.errors import ImageError


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

    max_frames: int = 1000
    """Frames of a DICOM file: as many as a study may have slices."""

    max_frame_bytes: int = 512 * 1024 * 1024
    """Size of all frames of a DICOM file once they are unpacked, in bytes: 1000 of 512 x 512 pixels."""


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True)
class ImageWarning:
    """Something about an image that did not keep it from being judged."""

    reason: str
    message: str


@dataclass(frozen=True)
class DecodedImage:
    """An image that passed the gate: upright, one frame, 8 bits, mode ``L`` or ``RGB``, no alpha.

    A JPEG may have shrunk on load, though never below the size that the model takes.
    """

    image: Image.Image
    warnings: tuple[ImageWarning, ...]


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


def choose_frame(frame: int, frames: int) -> int:
    """Returns which frame of a file to judge, from 0.

    Args:
        frame: as a caller says it: from 1, 0 for the only one.
        frames: how many the file has.

    Raises:
        ImageError: reasons IMAGE_MULTI_FRAME, IMAGE_FRAME_MISSING.
    """
    if frame > frames:
        raise missing_frame(frame, frames)
    if not frame and frames > 1:
        raise ImageError(
            "IMAGE_MULTI_FRAME",
            f"The file holds {frames} frames. Say which one is to be judged, or send it as a study.",
        )
    return max(frame - 1, 0)


def missing_frame(frame: int, frames: int) -> ImageError:
    return ImageError("IMAGE_FRAME_MISSING", f"The file has no frame {frame}: it has {frames}.")


def deep_image(bits: int) -> ImageError:
    """More than 8 bits: what decoders make of that (clip, or drop bits) is not what a reader would look at."""
    return ImageError(
        "IMAGE_BIT_DEPTH",
        f"The image has {bits} bits a channel: raw CT values need a window before they can be judged. "
        "Send the DICOM file, or export it as 8-bit PNG or JPEG with a brain window (level 40, width 80).",
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
