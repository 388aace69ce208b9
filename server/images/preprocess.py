"""From the bytes of a file to the pixels that a model sees: the only decoder in the project.

Training, converter and server all call these functions, so that a model is judged on exactly what it learned from.
Arithmetic on pixel values (scaling, normalisation) is not done here: it is in the model's graph.

Two steps: ``decode_image`` is the gate for hostile, damaged or unsuitable files; ``to_pixels`` brings what passed to
the model's size and colour. Each file is walked once (``server.images.png_file``, ``server.images.jpeg_file``), which
takes from it what the pixels need and leaves the rest; limits are checked there on the header, before any pixel is
decoded.

A half-received or altered scan must not be judged as if it were whole: PNG's checksums and JPEG's coded data are
checked. A JPEG can change inside and still be coded well, since it has no checksum: what protects against that is the
request's image_sha256.

Large images shrink on load, by whole numbers: a JPEG in its own decoder, by scaling its DCT blocks (ITU-T T.81 leaves
room for it, libjpeg does it), any other by averaging blocks of pixels. One resize brings the rest to the model's size.
Where a spec asks for the resize of a library (``server.images.resample``), that one step is all. Grey stays one channel
all the way into a grey model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from server.errors import ImageError
from server.images.dicom.optional import decode_dicom
from server.images.dicom.signature import is_dicom
from server.images.dicom.window import Window
from server.images.fit import Placement, place
from server.images.image_file import (
    DEFAULT_LIMITS,
    DecodedImage,
    ImageLimits,
    ImageWarning,
    check_dimensions,
    missing_frame,
)
from server.images.jpeg_file import JPEG_SIGNATURE, JpegFile, decode_jpeg, read_jpeg
from server.images.png_file import PNG_SIGNATURE, decode_png, read_png
from server.images.resample import LIBRARY_FILTERS, PILLOW_FILTERS, resample

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
"""How files begin that people send by mistake, and what to call them."""

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

COLOUR_TOLERANCE = 16
"""Largest difference of two channels, in grey levels, that JPEG's chroma rounding leaves in a grey image."""


Scan: TypeAlias = bytes | NDArray[np.uint8]
"""What is to be judged: the bytes of a file, or pixels [height, width, channels] with 1 (grey) or 3 (RGB) channels."""


@dataclass(frozen=True)
class InputFormat:
    """The image that a model sees, from its graph (size) and its spec (the rest, see ``server.models.contract``)."""

    height: int
    width: int
    colour: str = "rgb"
    resample: str = "bilinear"
    fit: str = "stretch"
    windows: tuple[Window, ...] = ()

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return 1 if self.colour == "grey" else 3


@dataclass(frozen=True)
class Pixels:
    """What a model sees of one image: uint8 [height, width, channels], and what to know about it."""

    array: NDArray[np.uint8]
    warnings: tuple[ImageWarning, ...]
    margins: tuple[int, int] = (0, 0)
    """Rows above and below, and columns left and right, that are no part of the image but of ``pad``."""

    @property
    def content(self) -> NDArray[np.uint8]:
        """The image without the margins."""
        rows, columns = self.margins
        height, width, _ = self.array.shape
        return self.array[rows : height - rows, columns : width - columns]


def decode_image(
    data: Scan, input_format: InputFormat, limits: ImageLimits = DEFAULT_LIMITS, frame: int = 0
) -> DecodedImage:
    """Decodes a PNG, JPEG or DICOM file, or says why it cannot be judged.

    Args:
        data: the whole file; or pixels that somebody else has decoded.
        input_format: what the model takes: nothing is decoded that it would not see.
        limits: what the image may be.
        frame: which one of a file with several, from 1; 0: the only one.

    Raises:
        ImageError: reasons IMAGE_EMPTY, IMAGE_TOO_LARGE, IMAGE_TOO_SMALL, IMAGE_UNDECODABLE, IMAGE_TRUNCATED,
            IMAGE_DAMAGED, IMAGE_BIT_DEPTH, IMAGE_COLOUR_MODE, IMAGE_MULTI_FRAME, IMAGE_FRAME_MISSING, of DICOM files
            also those of ``server.images.dicom.refusals``. Nothing else is ever raised for any bytes.
        MemoryError: the machine's fault, not the image's.
    """
    check_size(data, limits)
    kind = "pixels" if isinstance(data, np.ndarray) else find_format(data)
    if frame > 1 and kind != "DICOM":
        raise missing_frame(frame, 1)
    if isinstance(data, np.ndarray):
        flat = Image.fromarray(data[:, :, 0] if data.shape[2] == 1 else data)
        return describe(flat, flat.reduce(JPEG_BLOCK) if flat.mode == "RGB" else None)
    if kind == "DICOM":
        return decode_dicom(data, input_format.windows, limits, frame)
    if kind == "PNG":
        png = read_png(data, limits)
        flat, was_transparent = flatten_colours(decode_png(png))
        preview = flat.reduce(JPEG_BLOCK) if flat.mode == "RGB" else None
        return describe(flat, preview, png.orientation, was_transparent)
    jpeg = read_jpeg(data, limits)
    mode = "L" if jpeg.channels == 1 or input_format.colour == "grey" else "RGB"
    flat = decode_jpeg(jpeg, mode, shrinkable_side(input_format))
    return describe(flat, make_preview(jpeg, flat), jpeg.orientation)


def check_size(data: Scan, limits: ImageLimits) -> None:
    """Refuses an empty and a too large file: the check that costs nothing, to be made before any other."""
    if isinstance(data, np.ndarray):
        check_dimensions(data.shape[1], data.shape[0], limits)
        return
    if not data:
        raise ImageError("IMAGE_EMPTY", "The image is empty (0 bytes): check that the export finished.")
    if len(data) > limits.max_bytes:
        raise ImageError(
            "IMAGE_TOO_LARGE",
            f"The file has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted. Send the single slice.",
        )


def find_format(data: bytes) -> str:
    """Returns ``PNG``, ``JPEG`` or ``DICOM`` by how a file begins."""
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data.startswith(JPEG_SIGNATURE):
        return "JPEG"
    if is_dicom(data):
        return "DICOM"
    kind = next((name for magic, name in OTHER_FORMATS if data.startswith(magic)), "in no known image format")
    raise ImageError("IMAGE_UNDECODABLE", f"The file is {kind}. Only PNG, JPEG and DICOM are accepted.")


def describe(
    flat: Image.Image, preview: Image.Image | None, orientation: int = 1, was_transparent: bool = False
) -> DecodedImage:
    """Turns an image upright and says what is odd about it.

    Args:
        flat: mode ``L`` or ``RGB``.
        preview: about one pixel a DCT block, to look for colours in; None where the file has no colours.
        orientation: as in Exif.
        was_transparent: whether anything in the image was.
    """
    warnings: list[ImageWarning] = []
    if preview is not None and channel_spread(preview) > COLOUR_TOLERANCE:
        warnings.append(ImageWarning("IMAGE_COLOURED", "The image has colours; the model was made for grey CT slices."))
    if was_transparent:
        warnings.append(ImageWarning("IMAGE_TRANSPARENT", "Transparent parts of the image were judged as black."))
    if orientation in UPRIGHT:
        flat = flat.transpose(UPRIGHT[orientation])
        warnings.append(ImageWarning("IMAGE_ROTATED", "The image was turned upright as its EXIF orientation says."))
    return DecodedImage(flat, tuple(warnings))


def shrinkable_side(input_format: InputFormat) -> int:
    """Returns the side in pixels that a JPEG may shrink to while it is decoded, 0 for not at all."""
    if input_format.resample == "nearest" or input_format.resample in LIBRARY_FILTERS:
        return 0  # they take pixels as they are, as those saw them who trained the model
    return max(input_format.height, input_format.width)  # whichever way the image will be turned


def make_preview(jpeg: JpegFile, flat: Image.Image) -> Image.Image | None:
    """Returns about one pixel a DCT block, to look for colours in: where none were decoded, from the file."""
    if jpeg.channels == 1:
        return None
    return flat.reduce(JPEG_BLOCK) if flat.mode == "RGB" else decode_jpeg(jpeg, "RGB", 1)


def flatten_colours(image: Image.Image) -> tuple[Image.Image, bool]:
    """Returns the image as ``L`` or ``RGB`` on a black ground, and whether anything in it was transparent."""
    colour = "L" if image.mode in ("L", "LA") else "RGB"
    if "A" not in image.mode and "transparency" not in image.info:
        return (image if image.mode == colour else image.convert(colour)), False
    with_alpha = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = with_alpha.getchannel("A")
    opaque = with_alpha.convert("RGB") if colour == "RGB" else with_alpha.getchannel("R")
    del image, with_alpha  # each is 100 MB at the largest image allowed
    if alpha.getextrema()[0] == 255:
        return opaque, False
    # Pillow's convert() drops alpha and so makes hidden pixels visible; pasting through it does not.
    flat = Image.new(colour, opaque.size)
    flat.paste(opaque, mask=alpha)
    return flat, True


def to_pixels(decoded: DecodedImage, input_format: InputFormat) -> Pixels:
    """Brings an image to a model's size and colour.

    Returns:
        ``Pixels`` with an array uint8 [height, width, channels], C-contiguous, 0 to 255, and all warnings so far.
    """
    image, warnings = decoded.image, list(decoded.warnings)
    placement = find_placement(image.size, input_format)
    left, top, right, bottom = placement.source
    if right - left < input_format.width and bottom - top < input_format.height:
        warnings.append(
            ImageWarning(
                "IMAGE_UPSCALED",
                f"The image is {image.width} x {image.height} pixels and was enlarged for the model, "
                "which adds no detail.",
            )
        )
    if input_format.colour == "grey" and image.mode != "L":
        image = image.convert("L")
    # Grey stays one channel until after the resize: the result is the same as for R = G = B, at a third of the work.
    image = resize(image, input_format, placement)
    if input_format.colour == "rgb" and image.mode == "L":
        image = Image.merge("RGB", (image, image, image))
    array = np.asarray(image).reshape(input_format.height, input_format.width, input_format.channels)
    if array.max() == array.min():
        warnings.append(ImageWarning("IMAGE_BLANK", "The image is blank: every pixel has the same value."))
    (left, top), (width, height) = placement.corner, placement.size
    margins = (min(top, input_format.height - top - height), min(left, input_format.width - left - width))
    return Pixels(np.ascontiguousarray(array), tuple(warnings), margins)


def find_placement(size: tuple[int, int], input_format: InputFormat) -> Placement:
    """Returns which part of an image of a size, width and height, goes where in a model's input."""
    room = (input_format.width, input_format.height)
    return place(size, room, input_format.fit, like_tf=input_format.resample.startswith("tf-"))


def resize(image: Image.Image, input_format: InputFormat, placement: Placement) -> Image.Image:
    """Resizes as the model's spec says.

    With a filter of Pillow's what is at least twice too large is first reduced by a whole number (``reducing_gap``),
    which is several times faster than one step and differs from it by about one grey level.
    """
    if placement.source != (0, 0, *image.size):
        image = image.crop(placement.source)
    if image.size != placement.size:
        if input_format.resample in PILLOW_FILTERS:
            image = image.resize(placement.size, PILLOW_FILTERS[input_format.resample], reducing_gap=1.0)
        else:
            image = resample(image, placement.size, input_format.resample)
    size = (input_format.width, input_format.height)
    if image.size == size:
        return image
    padded = Image.new(image.mode, size)
    padded.paste(image, placement.corner)
    return padded


def channel_spread(image: Image.Image) -> int:
    """Largest difference of two channels at one pixel of an RGB image, in grey levels."""
    red, green, blue = image.split()
    pairs = ((red, green), (green, blue), (blue, red))
    return max(int(np.asarray(ImageChops.difference(*pair)).max()) for pair in pairs)


def load_pixels(data: Scan, input_format: InputFormat, limits: ImageLimits = DEFAULT_LIMITS, frame: int = 0) -> Pixels:
    """``decode_image`` and ``to_pixels`` in one call.

    Raises:
        ImageError: as ``decode_image``.
    """
    return to_pixels(decode_image(data, input_format, limits, frame), input_format)
