"""From the bytes of a file to the pixels that a model sees: the only decoder in the project.

Training, converter and server all call these functions, so that a model is judged on exactly what it learned from.
Arithmetic on pixel values (scaling, normalisation) is not done here: it is in the model's graph.

Two steps: ``decode_image`` is the gate for hostile, damaged or unsuitable files; ``to_pixels`` brings what passed to
the model's size and colour. Limits are checked on the header, before any pixel is decoded.

Large images shrink on load, by whole numbers: a JPEG in its own decoder, by scaling its DCT blocks (ITU-T T.81 leaves
room for it, libjpeg does it), any other by averaging blocks of pixels. One resize brings the rest to the model's size.
Grey stays one channel all the way into a grey model.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile, ImageOps

from server.errors import ImageError
from server.image_file import (
    DEFAULT_LIMITS,
    ImageLimits,
    check_container,
    sixteen_bit_image,
    truncated_image,
    undecodable_image,
)

# Pillow's own bomb check warns through the process-wide warnings machinery and lets 89 megapixel pass. Ours is stricter
# and runs on the header of every image, so Pillow's is switched off rather than hit first.
Image.MAX_IMAGE_PIXELS = None
# A half-received scan must not be judged as if its missing half were grey. A JPEG that is damaged inside can decode all
# the same, since JPEG has no checksum: what protects against that is the request's image_sha256.
ImageFile.LOAD_TRUNCATED_IMAGES = False

RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image with this EXIF orientation upright (Exif 2.32, 4.6.4 A); 1 is upright already."""

JPEG_BLOCK = 8
"""Pixels a side of a DCT block, and so the strongest shrinking that a JPEG decoder offers."""

ACCEPTED_MODES = ("L", "LA", "P", "PA", "RGB", "RGBA")
COLOUR_TOLERANCE = 16
"""Largest difference of two channels, in grey levels, that JPEG's chroma rounding leaves in a grey image."""


@dataclass(frozen=True)
class InputFormat:
    """The image that a model sees, from its graph (size) and its spec (the rest, see ``server.contract``)."""

    height: int
    width: int
    colour: str = "rgb"
    resample: str = "bilinear"
    fit: str = "stretch"

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return 1 if self.colour == "grey" else 3


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


@dataclass(frozen=True)
class Pixels:
    """What a model sees of one image: uint8 [height, width, channels], and what to know about it."""

    array: NDArray[np.uint8]
    warnings: tuple[ImageWarning, ...]


def decode_image(data: bytes, input_format: InputFormat, limits: ImageLimits = DEFAULT_LIMITS) -> DecodedImage:
    """Decodes a PNG or JPEG file, or says why it cannot be judged.

    Args:
        data: the whole file.
        input_format: what the model takes: nothing is decoded that it would not see.
        limits: what the image may be.

    Raises:
        ImageError: reasons IMAGE_EMPTY, IMAGE_TOO_LARGE, IMAGE_TOO_SMALL, IMAGE_UNDECODABLE, IMAGE_TRUNCATED,
            IMAGE_BIT_DEPTH, IMAGE_COLOUR_MODE, IMAGE_MULTI_FRAME. Nothing else is ever raised for any bytes.
    """
    image_format = check_container(data, limits)
    try:
        return decode_checked(data, image_format, input_format, limits)
    except ImageError:
        raise
    except Exception as error:
        # Pillow raises SyntaxError, ValueError, OverflowError, NotImplementedError, MemoryError, struct.error and more
        # on hostile bytes. Whatever it is, the bytes are at fault, and its text may quote them.
        raise (truncated_image() if "truncated" in str(error) else undecodable_image()) from None


def decode_checked(data: bytes, image_format: str, input_format: InputFormat, limits: ImageLimits) -> DecodedImage:
    """Decodes bytes whose container passed; lets Pillow's errors through."""
    warnings: list[ImageWarning] = []
    with Image.open(io.BytesIO(data), formats=(image_format,)) as image:
        check_header(image, limits)
        has_channels = image.mode not in ("L", "LA")
        shrink_on_load(image, input_format)
        image.load()
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        flat, was_transparent = flatten_colours(image)
    if has_channels and channel_spread(make_preview(data, flat)) > COLOUR_TOLERANCE:
        warnings.append(ImageWarning("IMAGE_COLOURED", "The image has colours; the model was made for grey CT slices."))
    if was_transparent:
        warnings.append(ImageWarning("IMAGE_TRANSPARENT", "Transparent parts of the image were judged as black."))
    if orientation in UPRIGHT:
        flat = flat.transpose(UPRIGHT[orientation])
        warnings.append(ImageWarning("IMAGE_ROTATED", "The image was turned upright as its EXIF orientation says."))
    return DecodedImage(flat, tuple(warnings))


def check_header(image: Image.Image, limits: ImageLimits) -> None:
    """Applies the limits to an image of which only the header has been read."""
    width, height = image.size
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
    # A second PNG header can say other than the first; what counts is how Pillow will read the pixels.
    if any("16" in str(tile.args) for tile in getattr(image, "tile", ())):
        raise sixteen_bit_image()
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise ImageError(
            "IMAGE_MULTI_FRAME", f"The file holds {frames} images. Export the one slice that is to be judged."
        )
    if image.mode not in ACCEPTED_MODES:
        raise ImageError(
            "IMAGE_COLOUR_MODE",
            f"The image has the colour mode {image.mode}, which is not made for screens. Export it as grey or RGB.",
        )


def shrink_on_load(image: Image.Image, input_format: InputFormat) -> None:
    """Tells the decoder of a JPEG to leave out what the model would not see; does nothing to other images."""
    if input_format.resample != "nearest":  # which takes pixels as they are
        side = max(input_format.height, input_format.width)  # whichever way the image will be turned
        image.draft("L" if input_format.colour == "grey" else image.mode, (side, side))


def make_preview(data: bytes, flat: Image.Image) -> Image.Image:
    """Returns about one pixel a DCT block, to look for colours in: where none were decoded, from the file."""
    if flat.mode == "RGB":
        return flat.reduce(JPEG_BLOCK)
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        image.draft("RGB", (1, 1))
        image.load()
        return image


def flatten_colours(image: Image.Image) -> tuple[Image.Image, bool]:
    """Returns the image as ``L`` or ``RGB`` on a black ground, and whether anything in it was transparent."""
    colour = "L" if image.mode in ("L", "LA") else "RGB"
    if "A" not in image.mode and "transparency" not in image.info:
        return (image if image.mode == colour else image.convert(colour)), False
    with_alpha = image.convert("RGBA")
    alpha = with_alpha.getchannel("A")
    flat = Image.new(colour, image.size)
    # Pillow's convert() drops alpha and so makes hidden pixels visible; pasting through it does not.
    flat.paste(with_alpha.convert("RGB") if colour == "RGB" else with_alpha.getchannel("R"), mask=alpha)
    lowest_alpha = alpha.getextrema()[0]
    return flat, lowest_alpha != 255


def to_pixels(decoded: DecodedImage, input_format: InputFormat) -> Pixels:
    """Brings an image to a model's size and colour.

    Returns:
        ``Pixels`` with an array uint8 [height, width, channels], C-contiguous, 0 to 255, and all warnings so far.
    """
    image, warnings = decoded.image, list(decoded.warnings)
    if image.width < input_format.width and image.height < input_format.height:
        warnings.append(
            ImageWarning(
                "IMAGE_UPSCALED",
                f"The image is {image.width} x {image.height} pixels and was enlarged for the model, "
                "which adds no detail.",
            )
        )
    if input_format.colour == "grey":
        image = image.convert("L")
    # Grey stays one channel until after the resize: the result is the same as for R = G = B, at a third of the work.
    image = resize(image, input_format)
    if input_format.colour == "rgb" and image.mode == "L":
        image = Image.merge("RGB", (image, image, image))
    array = np.asarray(image).reshape(input_format.height, input_format.width, input_format.channels)
    if array.max() == array.min():
        warnings.append(ImageWarning("IMAGE_BLANK", "The image is blank: every pixel has the same value."))
    return Pixels(np.ascontiguousarray(array), tuple(warnings))


def resize(image: Image.Image, input_format: InputFormat) -> Image.Image:
    """Resizes as the model's spec says: ``stretch``, or ``pad`` with black around the centred image.

    What is at least twice too large is first reduced by a whole number (Pillow's ``reducing_gap``), which is several
    times faster than one step and differs from it by about one grey level.
    """
    size = inner = (input_format.width, input_format.height)
    if input_format.fit == "pad":
        scale = min(size[0] / image.width, size[1] / image.height)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if image.size != inner:
        image = image.resize(inner, RESAMPLE[input_format.resample], reducing_gap=1.0)
    return image if inner == size else ImageOps.pad(image, size, color=0)


def channel_spread(image: Image.Image) -> int:
    """Largest difference of two channels at one pixel of an RGB image, in grey levels."""
    red, green, blue = image.split()
    pairs = ((red, green), (green, blue), (blue, red))
    return max(int(np.asarray(ImageChops.difference(*pair)).max()) for pair in pairs)


def load_pixels(data: bytes, input_format: InputFormat, limits: ImageLimits = DEFAULT_LIMITS) -> Pixels:
    """``decode_image`` and ``to_pixels`` in one call.

    Raises:
        ImageError: as ``decode_image``.
    """
    return to_pixels(decode_image(data, input_format, limits), input_format)
