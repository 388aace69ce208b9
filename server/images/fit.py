"""Which part of an image fills which part of a model's input: every name of ``fit`` that a model's spec may state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FITS = ("stretch", "pad", "crop")
"""``stretch`` fills the input, ``pad`` keeps the aspect ratio on a black ground, ``crop`` cuts the longer side at both
ends to keep it."""


@dataclass(frozen=True)
class Placement:
    """Where the pixels of an image go."""

    source: tuple[int, int, int, int]
    """The part of the image that is taken: left, top, right and bottom, in its pixels."""

    size: tuple[int, int]
    """Width and height that it gets."""

    corner: tuple[int, int] = (0, 0)
    """Left and top of it within the input."""


def place(size: tuple[int, int], room: tuple[int, int], fit: str, like_tf: bool = False) -> Placement:
    """Fits an image of a size, width and height, into the room of a model's input.

    Args:
        size: width and height of the image.
        room: width and height of the input.
        fit: one of ``FITS``.
        like_tf: whether ``pad`` rounds as ``tf.image.resize_with_pad`` does; otherwise as Pillow's ``ImageOps.pad``.
    """
    if fit == "crop":
        return Placement(find_middle(size, room), room)
    whole = (0, 0, *size)
    if fit == "stretch":
        return Placement(whole, room)
    if like_tf:
        return pad_like_tf(size, room)
    scale = min(space / side for side, space in zip(size, room, strict=True))
    width, height = (max(1, round(side * scale)) for side in size)
    return Placement(whole, (width, height), (round((room[0] - width) / 2), round((room[1] - height) / 2)))


def pad_like_tf(size: tuple[int, int], room: tuple[int, int]) -> Placement:
    """``tf.image.resize_with_pad``: it rounds down, in a precision of which a side of 200 may become 199."""
    sides, spaces = np.array(size, np.float32), np.array(room, np.float32)
    exact = sides / (sides / spaces).max()
    width, height = (max(1, int(side)) for side in exact)
    left, top = (max(0, int(margin)) for margin in (spaces - exact) / 2)
    return Placement((0, 0, *size), (width, height), (left, top))


def find_middle(size: tuple[int, int], room: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns the largest box in the middle that has the aspect ratio of ``room``, as Keras' ``smart_resize`` does."""
    width = max(1, min(size[0], size[1] * room[0] // room[1]))
    height = max(1, min(size[1], size[0] * room[1] // room[0]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height
