"""From an input tensor to the images in it.

Shapes are the caller's own words: they are compared with the bytes that are there, and nothing is made of their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.admission.judge import MOST_IMAGES
from server.errors import RequestError
from server.oip.request import SHARED_MEMORY, InferRequest, InputTensor, invalid_tensor, show

INPUT_NAME = "image"
"""The only input there is."""

BYTES, UINT8 = "BYTES", "UINT8"

CHANNELS = (1, 3)
"""Of pixels: grey, and red, green and blue."""

LENGTH_BYTES = 4
"""Before each element of a raw BYTES tensor: its length, the lowest byte first."""

MOST_DIMENSIONS = 8
"""Of a tensor; the largest that is of use has 4."""

SHAPES = {BYTES: "[n] or [n, 1]", UINT8: "[n, height, width, 1] or [n, height, width, 3]"}


def read_images(request: InferRequest) -> list[bytes | NDArray[np.uint8]]:
    """Returns the images of a request: encoded ones as bytes, pixels as uint8 [height, width, channels].

    Pixels are views of what came.

    Raises:
        RequestError: reasons TENSOR_INVALID, and BATCH_SIZE_INVALID unless there are 1 to ``MOST_IMAGES``.
    """
    tensor = find_input(request.inputs)
    if SHARED_MEMORY in tensor.parameters:
        raise invalid_tensor("Input", tensor.name, "its elements in the request", "a name of shared memory")
    if tensor.datatype not in SHAPES:
        expected = "datatype BYTES (encoded images) or UINT8 (pixels)"
        raise invalid_tensor("Input", tensor.name, expected, f"datatype {show(tensor.datatype)}")
    shape, elements = tensor.shape, tensor.elements
    fits = len(shape) == 1 or shape[1:] == (1,) if tensor.datatype == BYTES else len(shape) == 4
    if not fits or min(shape[1:], default=1) < 1 or (tensor.datatype == UINT8 and shape[3] not in CHANNELS):
        raise invalid_tensor("Input", tensor.name, f"shape {SHAPES[tensor.datatype]}", f"shape {show_shape(shape)}")
    if not 1 <= shape[0] <= MOST_IMAGES:
        raise RequestError(
            "BATCH_SIZE_INVALID",
            f"Input {show(tensor.name)}: expected 1 to {MOST_IMAGES} images; got shape {show_shape(shape)}.",
        )
    if elements is None:
        raise invalid_tensor("Input", tensor.name, f"elements of {tensor.datatype}", "none of that type")
    if tensor.datatype == UINT8:
        return list(read_pixels(tensor, elements))
    return read_encoded(tensor, elements)


def find_input(inputs: Sequence[InputTensor]) -> InputTensor:
    """Returns the one that there must be."""
    for tensor in inputs:
        if tensor.name != INPUT_NAME:
            raise invalid_tensor("Input", tensor.name, f"only an input {INPUT_NAME!r}", "one that is not known")
    if len(inputs) != 1:
        raise invalid_tensor("Input", INPUT_NAME, "it once", f"it {len(inputs)} times")
    return inputs[0]


def read_pixels(tensor: InputTensor, elements: object) -> NDArray[np.uint8]:
    """The pixels as uint8 [n, height, width, channels], without copying them."""
    wanted = math.prod(tensor.shape)
    if not isinstance(elements, memoryview | np.ndarray):
        raise invalid_tensor("Input", tensor.name, "elements of UINT8", "elements of BYTES")
    flat = np.frombuffer(elements, np.uint8)
    if flat.size != wanted:
        raise invalid_tensor(
            "Input", tensor.name, f"{wanted:,} elements for shape {show_shape(tensor.shape)}", f"{flat.size:,}"
        )
    return flat.reshape(tensor.shape)


def read_encoded(tensor: InputTensor, elements: object) -> list[bytes | NDArray[np.uint8]]:
    """The encoded images, each on its own."""
    if isinstance(elements, np.ndarray):
        raise invalid_tensor("Input", tensor.name, "elements of BYTES", "elements of UINT8")
    parts = split_raw(tensor, elements) if isinstance(elements, memoryview) else elements
    assert isinstance(parts, Sequence)
    if len(parts) != tensor.shape[0]:
        expected = f"{tensor.shape[0]} elements for shape {show_shape(tensor.shape)}"
        raise invalid_tensor("Input", tensor.name, expected, f"{len(parts):,}")
    return [bytes(part) for part in parts]


def split_raw(tensor: InputTensor, data: memoryview) -> list[memoryview]:
    """The elements of a raw BYTES tensor, as many as its shape says."""
    parts: list[memoryview] = []
    position = 0
    for index in range(tensor.shape[0]):
        left = len(data) - position
        if left < LENGTH_BYTES:
            raise invalid_tensor("Input", tensor.name, f"{LENGTH_BYTES} bytes of length of element {index}", f"{left}")
        length = int.from_bytes(data[position : position + LENGTH_BYTES], "little")
        position += LENGTH_BYTES
        if length > left - LENGTH_BYTES:
            raise invalid_tensor(
                "Input", tensor.name, f"{length:,} bytes of element {index}, as stated", f"{left - LENGTH_BYTES:,}"
            )
        parts.append(data[position : position + length])
        position += length
    if position != len(data):
        expected = f"{tensor.shape[0]} elements for shape {show_shape(tensor.shape)}"
        raise invalid_tensor("Input", tensor.name, expected, f"{len(data) - position:,} bytes more")
    return parts


def show_shape(shape: Sequence[int]) -> str:
    """A shape, as a message shows it."""
    shown = [str(size) for size in shape[:MOST_DIMENSIONS]]
    return f"[{', '.join(shown + ['...'] * (len(shape) > MOST_DIMENSIONS))}]"
