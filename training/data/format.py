"""The pixels that every network of this package takes, and that ``spec.json`` asks of the server."""

from __future__ import annotations

from server.images.preprocess import InputFormat

IMAGE_SIZE = 256
"""Side of the networks' input, in pixels."""

INPUT_FORMAT = InputFormat(IMAGE_SIZE, IMAGE_SIZE, "grey", "bilinear", "stretch")
"""CT has no colours: the networks' three channels get the same values, and the converter folds them into one."""
