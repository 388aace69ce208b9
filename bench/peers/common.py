"""What the peers' servers share: settings from the environment, the images' decoding, the ONNX Runtime session.

Runs in the peers' environments, so it imports nothing of this project unless it is told to decode as this project does.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from PIL import Image

MODEL = os.environ.get("PEER_MODEL", "")
"""Model file."""

PORT = int(os.environ.get("PEER_PORT", "8000"))
WORKERS = int(os.environ.get("PEER_WORKERS", "1"))
"""Processes, or what the server calls workers."""

THREADS = int(os.environ.get("PEER_THREADS", "1"))
"""Threads inside one run of the model."""

PIXELS = os.environ.get("PEER_PIXELS", "pillow")
"""``pillow`` decodes as the author of such a server would, ``strokeserve`` with this project's own decoder."""

PRECISION = os.environ.get("PEER_PRECISION", "fp32")
"""``fp32``, or ``auto`` for what the runtime chooses."""

HEIGHT, WIDTH = 256, 256
LABELS = ("normal", "stroke")


def decode(data: bytes, channels: int = 3) -> Any:
    """Returns uint8 [1, 256, 256, channels]."""
    if PIXELS == "strokeserve":
        from server.images.preprocess import InputFormat, load_pixels

        colour = "grey" if channels == 1 else "rgb"
        return load_pixels(data, InputFormat(HEIGHT, WIDTH, colour)).array[np.newaxis]
    with Image.open(io.BytesIO(data)) as image:
        plain = image.convert("L" if channels == 1 else "RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return np.asarray(plain).reshape(1, HEIGHT, WIDTH, channels)


def answer(probabilities: Any) -> dict[str, Any]:
    """The answer to one image."""
    best = int(np.argmax(probabilities))
    return {"label": LABELS[best], "confidence": float(probabilities[best])}


class OnnxClassifier:
    """The model in ONNX Runtime, with its defaults but for the number of threads."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        (model_input,) = self._session.get_inputs()
        self._input, self._channels = model_input.name, model_input.shape[-1]

    def __call__(self, data: bytes) -> dict[str, Any]:
        """Classifies an encoded image."""
        (probabilities,) = self._session.run(None, {self._input: decode(data, self._channels)})
        return answer(probabilities[0])
