"""Images that look the same although their bytes differ: saved again, resized, brightened.

A 64-bit perceptual hash (the signs of the lowest DCT coefficients, as in pHash; Zauner 2010) finds candidates among all
pairs by XOR and bit count. It was made for photographs, and heads are all alike to it: so candidates must also agree
on their 32 x 32 pixels, by correlation, which brightness and contrast do not change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

SIDE = 32
"""Side of a small image, in pixels: enough to tell whether two images look alike."""

MOST_AREA = np.iinfo(np.uint16).max // 255
"""Pixels of a block whose sum fits 16 bits."""

HASH_SIDE = 8
HASH_LIMIT = 6
"""Most differing bits of a candidate pair. Copies of 400 synthetic slices, as JPEG of quality 40 to 80, resized to 180
and 512 pixels, darker and brighter by 10 to 20 %: at most 6. Of 2 million pairs of different slices 9,550 are as
close."""

CORRELATION_LIMIT = 0.99
"""Least correlation of near-duplicates. The same copies: 0.996 at least; the same pairs of different slices: 0.980 at
most, so none of them is taken for a copy."""

FLAT_SPREAD = 2.0
"""Standard deviation, in grey levels, below which an image is blank: blank images are all alike and no copies."""

NO_HASH = np.uint64(0)
"""Hash of a blank image; no other has it, since half of a hash's bits are set."""

IMAGE_CHUNK = 1024
"""Images that are transformed at once: 4 MB, and as much again for what comes of it."""

HASH_ROWS = 32
"""Rows of the hash comparison that are held at once: 5 MB for 20,000 images."""

PAIR_CHUNK = 1024
"""Candidate pairs whose pixels are compared at once: at most 12 MB."""


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Averages images down to 32 x 32.

    Args:
        pixels: uint8 [N, H, W], 0 to 255; H and W are multiples of 32.

    Returns:
        float32 [N, 1024], 0 to 255.
    """
    count, height, width = pixels.shape
    if height % SIDE or width % SIDE:
        raise ValueError(f"height and width must be multiples of {SIDE}, not {height} and {width}")
    blocks = pixels.reshape(count, SIDE, height // SIDE, SIDE, width // SIDE)
    means: NDArray[np.float32] = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(count, SIDE * SIDE)
    return means


def sum_blocks(pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Returns images as ``shrink`` does, exactly, in half of the memory: uint16 [N, 1024], sums instead of means.

    Args:
        pixels: uint8 [N, H, W]; H and W are multiples of 32, at most 512, beyond which a sum might not fit.
    """
    _, height, width = pixels.shape
    area = (height // SIDE) * (width // SIDE)
    if area > MOST_AREA:
        raise ValueError(f"{height} x {width} pixels are too many for sums in 16 bits")
    sums: NDArray[np.uint16] = np.rint(shrink(pixels) * area).astype(np.uint16)
    return sums


def find_near_duplicates(small: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Finds the pairs of images that look the same.

    Args:
        small: uint8 [N, 1024], images of 32 x 32 pixels.
        groups: [N]; pairs within a group are not looked for. All pairs where None.

    Returns:
        int64 [P, 2], positions, the lower one first; sorted.
    """
    hashes, outlines = describe_images(small)
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(hashes), HASH_ROWS):
        rows, others = hashes[start : start + HASH_ROWS], hashes[start:]
        close = np.bitwise_count(rows[:, np.newaxis] ^ others) <= HASH_LIMIT
        first, second = divmod(np.flatnonzero(close), len(others))
        pairs = np.stack([first, second], axis=1) + start
        pairs = pairs[(first < second) & (hashes[pairs] != NO_HASH).all(axis=1)]
        if groups is not None:
            pairs = pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]
        for part in range(0, len(pairs), PAIR_CHUNK):
            found.append(confirm_pairs(small, outlines, pairs[part : part + PAIR_CHUNK]))
    return np.concatenate(found)


def describe_images(small: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Returns the hash [N] of each small image and its outline [N, 63]: its lowest coefficients, but for the mean, as
    they are of an image of length 1."""
    hashes, outlines = np.empty(len(small), np.uint64), np.empty((len(small), HASH_SIDE**2 - 1), np.float32)
    for start in range(0, len(small), IMAGE_CHUNK):
        part = small[start : start + IMAGE_CHUNK]
        lowest = transform_images(part)
        hashes[start : start + IMAGE_CHUNK] = hash_images(part, lowest)
        spreads = np.maximum(part.std(axis=1, dtype=np.float32), FLAT_SPREAD) * SIDE
        outlines[start : start + IMAGE_CHUNK] = lowest[:, 1:] / spreads[:, np.newaxis]
    return hashes, outlines


def transform_images(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the lowest 64 DCT coefficients [N, 64] of small images, the mean grey first."""
    pixels = small.reshape(-1, SIDE, SIDE).astype(np.float32)
    coefficients = dctn(pixels, axes=(1, 2), norm="ortho")
    lowest: NDArray[np.float32] = coefficients[:, :HASH_SIDE, :HASH_SIDE].reshape(-1, HASH_SIDE**2)
    return lowest


def hash_images(small: NDArray[np.uint8], lowest: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Returns the perceptual hash [N] of images from their lowest coefficients: ``NO_HASH`` where one is blank."""
    # The first coefficient says nothing about shape; it would only move the median.
    above = lowest > np.median(lowest[:, 1:], axis=1, keepdims=True)
    hashes = np.packbits(above, axis=1).view(np.uint64)[:, 0]
    return np.where(small.std(axis=1, dtype=np.float32) < FLAT_SPREAD, NO_HASH, hashes)


def confirm_pairs(
    small: NDArray[np.uint8], outlines: NDArray[np.float32], pairs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns the pairs [P, 2] whose small images correlate as those of copies do.

    Images of mean 0 and length 1 that correlate by r are sqrt(2 - 2 r) apart, and their lowest coefficients, being a
    projection (``outlines`` [N, 63]), no further: that settles nearly all pairs at a sixteenth of the work.
    """
    apart = ((outlines[pairs[:, 0]] - outlines[pairs[:, 1]]) ** 2).sum(axis=1)
    pairs = pairs[apart <= 2 - 2 * CORRELATION_LIMIT]
    first, second = (standardise(small[pairs[:, column]]) for column in (0, 1))
    confirmed: NDArray[np.int64] = pairs[np.einsum("pd,pd->p", first, second) >= CORRELATION_LIMIT]
    return confirmed


def standardise(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns small images, none of them blank, with mean 0 and length 1: their products are correlations."""
    values = small.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values
