"""A heatmap over the image that it explains, as a PNG in which it says what it is not for."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

OVERLAY_SIDE = 512
"""About as many pixels has the longer side: a whole number of them for each of the image's, so that none is blurred."""

NOTICE = "RESEARCH, NOT FOR LOCALISATION"
"""Stands in the pixels: whoever passes the picture on passes this on."""

NOTICE_SHARE = 1 / 24
"""Height of its letters, of the picture's width: legible, and on one line."""

LEAST_HEAT = 1.0
"""Log-odds of a cell that are drawn as the strongest heat where no cell has more: what hardly counts shall not glow."""

LOW, HIGH = (255, 220, 0), (213, 30, 0)
"""Colours of weak and strong evidence; both differ from grey for colour-blind people, too."""

OPACITY = 0.65
"""Of the strongest heat, so that the image stays visible under it."""

LEVELS = range(256)


class Box(NamedTuple):
    """A part of an image, in its pixels; its edges may lie between pixels, and beyond the image."""

    left: float
    top: float
    right: float
    bottom: float


def draw_overlay(pixels: NDArray[np.uint8], heatmap: NDArray[np.float32], area: Box) -> tuple[bytes, Box]:
    """Draws an image in grey and the heatmap over it in colour.

    Args:
        pixels: uint8 [height, width, channels].
        heatmap: float32 [rows, columns], finite, >= 0. Cells between whose middles heat changes gradually.
        area: where the heatmap lies in the image; where it does not reach there is no heat.

    Returns:
        A PNG with 8-bit RGB pixels, and where the heatmap lies in it.
    """
    height, width, _ = pixels.shape
    scale = max(1, round(OVERLAY_SIDE / max(height, width)))
    size, box = (width * scale, height * scale), Box(*(scale * edge for edge in area))
    grey = Image.fromarray(np.rint(pixels.mean(axis=2)).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    heat = spread(np.rint(heatmap * (255 / max(float(heatmap.max()), LEAST_HEAT))), box, size)
    ramps = [[round(low + (high - low) * level / 255) for level in LEVELS] for low, high in zip(LOW, HIGH, strict=True)]
    colour = Image.merge("RGB", [heat.point(ramp) for ramp in ramps])
    picture = Image.composite(colour, grey.convert("RGB"), heat.point([round(OPACITY * level) for level in LEVELS]))
    burn_in(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)  # a quarter larger than by default, in a quarter of the time
    return buffer.getvalue(), box


def spread(heat: NDArray[np.float32], box: Box, size: tuple[int, int]) -> Image.Image:
    """Brings heat, 0 to 255, to its box in a picture of a size, width and height; linear between the middles of cells.

    Returns:
        An image of mode ``L``.
    """
    rows, columns = heat.shape
    across, down = columns / (box.right - box.left), rows / (box.bottom - box.top)
    return Image.fromarray(heat.astype(np.uint8)).transform(
        size,
        Image.Transform.AFFINE,
        (across, 0, -across * box.left, 0, down, -down * box.top),
        Image.Resampling.BILINEAR,
    )


def burn_in(picture: Image.Image) -> None:
    """Writes the notice into the picture, along its lower edge: white with black around it, legible on anything."""
    letters = max(8, round(picture.width * NOTICE_SHARE))
    font, stroke = ImageFont.load_default(letters), max(1, letters // 8)
    place = (picture.width / 2, picture.height - letters / 4)
    ImageDraw.Draw(picture).text(
        place, NOTICE, fill="white", font=font, anchor="md", stroke_width=stroke, stroke_fill="black"
    )
