"""What a model sees, as a picture for people: browsers read no DICOM files, and know no model's window."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FASTEST = 1
"""Of zlib's levels: pictures are looked at once, and are as small as a model's input."""


def encode_picture(array: NDArray[np.uint8]) -> bytes:
    """Makes a PNG file.

    Args:
        array: uint8 [height, width, channels], 0 to 255, with 1 (grey) or 3 (RGB) channels.

    Returns:
        The bytes of the file, 8 bits a channel, with the same pixels.
    """
    file = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(file, "PNG", compress_level=FASTEST)
    return file.getvalue()
