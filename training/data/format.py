"""The pixels that every network of this package takes, and that ``spec.json`` asks of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from server.images.dicom.window import BRAIN, Window
from server.images.preprocess import InputFormat

IMAGE_SIZE = 256
"""Side of the networks' input, in pixels."""

INPUT_FORMAT = InputFormat(IMAGE_SIZE, IMAGE_SIZE, "grey", "bilinear", "stretch", (BRAIN,))
"""CT has no colours: the networks' three channels get the same values, and the converter folds them into one. Of CT
values they see the brain window, unless told."""


def make_format(windows: Sequence[Window]) -> InputFormat:
    """``INPUT_FORMAT`` with other windows for CT values; three are three channels, as colours are."""
    return replace(INPUT_FORMAT, colour="grey" if len(windows) == 1 else "rgb", windows=tuple(windows))
