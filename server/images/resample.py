"""What is done to an image's size: every name that a model's spec may state, and what it means.

Pillow's filters average over all pixels that an output pixel covers. Most public code resizes otherwise: OpenCV and
TensorFlow look at the nearest 1, 4 or 16 pixels however much an image shrinks, and each places and weights them in its
own way. A model that learned from such pixels is served such pixels: ``tf-...`` is ``tf.image.resize`` without
antialiasing, rounded to whole grey levels, ``cv2-...`` is ``cv2.resize`` of uint8, and ``pillow-...`` is
``Image.resize``, while the bare names of Pillow's filters stand for a faster way, which differs from that at edges.

OpenCV's and TensorFlow's are separable: along a line each output pixel is a weighted sum of few input pixels, its taps.
A filter here is a rule for taps and a way to round. ``tests/test_server_resample.py`` compares all with the libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BAND_PIXELS = 1 << 16
"""Pixels of one channel that are worked on at a time: what a resize needs beside the image stays at a few MB, and for
usual slices below what the C library asks the kernel for anew each time (twice as fast)."""

FIXED_POINT = 2048
"""OpenCV's weights of uint8 pixels are whole numbers of this fraction (INTER_RESIZE_COEF_SCALE)."""

TABLE = 1024
"""TensorFlow looks bicubic weights up in a table with so many steps from pixel to pixel."""


@dataclass(frozen=True)
class Taps:
    """Which pixels of a line make each pixel of the resized line: [taps, new size]."""

    indices: NDArray[np.intp]
    weights: NDArray[np.float32]


Blend = Callable[[NDArray[np.uint8], Taps, Taps], NDArray[np.uint8]]
"""From rows of the source and the taps along both directions, rows first, to rows of the result."""


@dataclass(frozen=True)
class Filter:
    """One way to resize."""

    find_taps: Callable[[int, int], Taps]
    """From the old and the new size of a line."""

    whole_numbers: bool = False
    """Whether sums are those of OpenCV's INTER_LINEAR, which cuts bits off between the two directions."""


# --- where an output pixel lies in the source ------------------------------------------------------------------------


def scale_tf(old: int, new: int) -> np.float32:
    """Source pixels an output pixel, in TensorFlow's precision."""
    return np.float32(old) / np.float32(new)


def scale_cv2(old: int, new: int) -> float:
    """The same in OpenCV's, which takes the reciprocal of a rounded number."""
    return 1 / (new / old)


def locate_tf(old: int, new: int) -> NDArray[np.float32]:
    """Returns the middle of each output pixel, [new], from the left edge of the image."""
    return (np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale_tf(old, new)


def locate_cv2(old: int, new: int) -> NDArray[np.float32]:
    """The same from the middle of the first pixel."""
    return ((np.arange(new) + 0.5) * scale_cv2(old, new) - 0.5).astype(np.float32)


# --- taps ------------------------------------------------------------------------------------------------------------


Kernel = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From distances, in pixels, to weights."""


def pick(places: NDArray[Any], old: int) -> Taps:
    """One tap: the pixel that each place lies in."""
    indices = np.minimum(np.floor(places).astype(np.intp), old - 1)[np.newaxis]
    return Taps(indices, np.ones(indices.shape, np.float32))


def weigh_neighbours(
    places: NDArray[np.float32], reach: int, kernel: Kernel, steps: int | None = None
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Returns indices and weights, [2 * reach, new], of the pixels around each place; some may lie outside the image.

    Args:
        places: from the middle of the first pixel.
        reach: pixels to each side.
        kernel: weights for distances of 0 to ``reach``.
        steps: to how many steps from pixel to pixel a place is rounded first; None: it is not.
    """
    first = np.floor(places)
    past = places - first
    if steps:
        past = (np.rint(past * steps) / steps).astype(np.float32)
    offsets = np.arange(1 - reach, 1 + reach, dtype=np.float32)[:, np.newaxis]
    return (first + offsets).astype(np.intp), kernel(np.abs(past - offsets))


def find_tf_bilinear(old: int, new: int) -> Taps:
    """The edge pixel is repeated outwards."""
    indices, weights = weigh_neighbours(locate_tf(old, new) - np.float32(0.5), 1, measure_triangle)
    return Taps(indices.clip(0, old - 1), weights)


def find_tf_bicubic(old: int, new: int) -> Taps:
    """Taps outside the image are dropped, and the others share their weight."""
    places = locate_tf(old, new) - np.float32(0.5)
    indices, weights = weigh_neighbours(places, 2, lambda away: measure_cubic(away, -0.5), TABLE)
    inside = indices.clip(0, old - 1)
    weights = np.where(inside == indices, weights, 0)
    return Taps(inside, weights / weights.sum(axis=0))


def find_cv2(old: int, new: int, reach: int, kernel: Kernel) -> Taps:
    """The edge pixel is repeated outwards."""
    indices, weights = weigh_neighbours(locate_cv2(old, new), reach, kernel)
    return Taps(indices.clip(0, old - 1), weights / weights.sum(axis=0))


def find_coverage(old: int, new: int, scale: float | np.float32) -> Taps:
    """Every pixel that an output pixel covers, by how much of it, in the precision of ``scale``."""
    edges = np.arange(new + 1).astype(np.asarray(scale).dtype) * scale
    left, right = edges[:-1], edges[1:]
    first = np.floor(left)
    indices = first + np.arange(int((np.ceil(right) - first).max()))[:, np.newaxis]
    covered = np.clip(np.minimum(right, indices + 1) - np.maximum(left, indices), 0, 1)
    return Taps(indices.astype(np.intp).clip(0, old - 1), (covered / scale).astype(np.float32))


def find_cv2_enlarging_area(old: int, new: int) -> Taps:
    """What OpenCV does for INTER_AREA where a side grows: an output pixel is mixed of two only where it covers both."""
    places = np.arange(new)
    first = np.floor(places * scale_cv2(old, new))
    past = (places + 1 - (first + 1) * (new / old)).astype(np.float32)
    past = np.where(past <= 0, 0, past - np.floor(past))
    indices = np.stack((first, first + 1)).astype(np.intp).clip(0, old - 1)
    return Taps(indices, np.stack((1 - past, past)).astype(np.float32))


def round_weights(taps: Taps) -> Taps:
    """Returns the taps with OpenCV's weights of uint8 pixels."""
    return Taps(taps.indices, (np.rint(taps.weights * FIXED_POINT) / FIXED_POINT).astype(np.float32))


# --- kernels: weight by distance -------------------------------------------------------------------------------------


def measure_triangle(away: NDArray[np.float32]) -> NDArray[np.float32]:
    return 1 - away


def measure_cubic(away: NDArray[np.float32], a: float) -> NDArray[np.float32]:
    """Keys' cubic convolution (1981): ``a`` is its slope at distance 1."""
    near = ((a + 2) * away - (a + 3)) * away * away + 1
    return np.where(away <= 1, near, ((a * away - 5 * a) * away + 8 * a) * away - 4 * a)


def measure_lanczos(away: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lanczos' window over 8 pixels."""
    return (np.sinc(away) * np.sinc(away / 4)).astype(np.float32)


# --- names -----------------------------------------------------------------------------------------------------------

PILLOW_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's, the fast way: what is large shrinks by whole numbers first (see ``server.images.preprocess.resize``)."""

CV2_BILINEAR = Filter(lambda old, new: round_weights(find_cv2(old, new, 1, measure_triangle)), whole_numbers=True)
CV2_ENLARGING_AREA = Filter(lambda old, new: round_weights(find_cv2_enlarging_area(old, new)), whole_numbers=True)
LIBRARY_FILTERS: dict[str, Filter | Image.Resampling] = {
    "tf-nearest": Filter(lambda old, new: pick(locate_tf(old, new), old)),
    "tf-bilinear": Filter(find_tf_bilinear),
    "tf-bicubic": Filter(find_tf_bicubic),
    "tf-area": Filter(lambda old, new: find_coverage(old, new, scale_tf(old, new))),
    "cv2-nearest": Filter(lambda old, new: pick(np.arange(new) * scale_cv2(old, new), old)),
    "cv2-bilinear": CV2_BILINEAR,
    "cv2-bicubic": Filter(lambda old, new: find_cv2(old, new, 2, lambda away: measure_cubic(away, -0.75))),
    "cv2-area": Filter(lambda old, new: find_coverage(old, new, scale_cv2(old, new))),
    "cv2-lanczos": Filter(lambda old, new: round_weights(find_cv2(old, new, 4, measure_lanczos))),
    "pillow-bilinear": Image.Resampling.BILINEAR,
    "pillow-bicubic": Image.Resampling.BICUBIC,
    "pillow-box": Image.Resampling.BOX,
    "pillow-hamming": Image.Resampling.HAMMING,
    "pillow-lanczos": Image.Resampling.LANCZOS,
}
"""What ``tf.image.resize``, ``cv2.resize`` and ``Image.resize`` do, in one step from the image as it was decoded."""

RESAMPLE_FILTERS = (*PILLOW_FILTERS, *LIBRARY_FILTERS)
"""The names that a model's spec may state."""


def find_filter(name: str, old: tuple[int, int], new: tuple[int, int]) -> Filter | Image.Resampling:
    """Returns the filter of a name of ``LIBRARY_FILTERS`` for an image of size ``old`` that becomes ``new``."""
    if name == "cv2-area":
        if new[0] > old[0] or new[1] > old[1]:
            return CV2_ENLARGING_AREA
        if old == (2 * new[0], 2 * new[1]):  # the one case that OpenCV rounds in whole numbers
            return CV2_BILINEAR
    return LIBRARY_FILTERS[name]


# --- the resize ------------------------------------------------------------------------------------------------------


def resample(image: Image.Image, size: tuple[int, int], name: str) -> Image.Image:
    """Resizes an image of mode ``L`` or ``RGB``.

    Args:
        image: the source.
        size: width and height of the result.
        name: one of ``LIBRARY_FILTERS``.
    """
    chosen = find_filter(name, image.size, size)
    if isinstance(chosen, Image.Resampling):
        return image.resize(size, chosen)
    across, down = chosen.find_taps(image.width, size[0]), chosen.find_taps(image.height, size[1])
    blend = blend_whole_numbers if chosen.whole_numbers else blend_fractions
    planes = []
    for channel in image.getbands():  # one after the other: half the time of three values a pixel
        plane = image if image.mode == "L" else image.getchannel(channel)
        planes.append(Image.fromarray(resample_plane(plane, across, down, blend)))
    return planes[0] if image.mode == "L" else Image.merge(image.mode, planes)


def resample_plane(plane: Image.Image, across: Taps, down: Taps, blend: Blend) -> NDArray[np.uint8]:
    """Returns a resized image of mode ``L``, uint8 [new height, new width].

    It is done in bands of rows, of which only those that count are looked at: no second copy of a large image is made.
    """
    height, width = down.indices.shape[1], across.indices.shape[1]
    rows = max(1, int(BAND_PIXELS / max(plane.width, width) / max(1, plane.height / height)))
    result = np.empty((height, width), np.uint8)
    for start in range(0, height, rows):
        indices, weights = down.indices[:, start : start + rows], down.weights[:, start : start + rows]
        top, bottom = int(indices.min()), int(indices.max()) + 1
        band = np.asarray(plane.crop((0, top, plane.width, bottom)))
        needed, places = np.unique(indices - top, return_inverse=True)
        taps = Taps(places.reshape(indices.shape), weights)
        result[start : start + rows] = blend(band[needed], across, taps)
    return result


def blend_fractions(band: NDArray[np.uint8], across: Taps, down: Taps) -> NDArray[np.uint8]:
    """Returns the weighted sums, rounded to nearest at the end: uint8 [new rows, new width]."""
    lines = sum_taps(band, across.indices, across.weights, axis=1)
    total = sum_taps(lines, down.indices, down.weights, axis=0)
    pixels: NDArray[np.uint8] = np.rint(total).clip(0, 255).astype(np.uint8)
    return pixels


def blend_whole_numbers(band: NDArray[np.uint8], across: Taps, down: Taps) -> NDArray[np.uint8]:
    """The same in OpenCV's integers (VResizeLinear of uint8): 4 bits are cut off each line, 16 off each product."""
    wide, high = ((taps.weights * FIXED_POINT).astype(np.int32) for taps in (across, down))
    lines = sum_taps(band, across.indices, wide, axis=1) >> 4
    total = sum_taps(lines, down.indices, high, axis=0, cut=16)
    return ((total + 2) >> 2).astype(np.uint8)


def sum_taps(
    values: NDArray[Any], indices: NDArray[np.intp], weights: NDArray[Any], axis: int, cut: int = 0
) -> NDArray[Any]:
    """Returns the weighted sums along an axis, in the type of the weights; of each product ``cut`` bits are cut off."""
    total: Any = 0
    for places, weight in zip(indices, weights if axis else weights[:, :, np.newaxis], strict=True):
        product = values.take(places, axis) * weight
        total = total + (product >> cut if cut else product)
    return np.asarray(total)
