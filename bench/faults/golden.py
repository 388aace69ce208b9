"""What a server must answer, computed beside it: the same bytes through the same decoder and the same runtime.

Answers are the same to the bit whatever the number of threads (``tests/test_bench_faults.py``), so that one golden
answer is enough for a server that changes between two numbers.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench.images import read_images
from server.config import ServerConfig, read_config
from server.core.plan import make_plan
from server.errors import ImageError
from server.images.preprocess import load_pixels
from server.machine.processors import count_processors
from server.models.engines.engine import EngineOptions
from server.models.repository import find_wanted
from server.models.runtime import OnnxModel, load_model


class Golden(Mapping[tuple[str, str], tuple[float, ...]]):
    """Answers of models to images, by the digests of both. What cannot be judged has none."""

    def __init__(self) -> None:
        self._models: dict[str, OnnxModel] = {}
        self._images: dict[str, bytes] = {}
        self._answers: dict[tuple[str, str], tuple[float, ...] | None] = {}

    def add_model(self, folder: Path, options: EngineOptions) -> OnnxModel:
        """Learns a model as a server would load it. Raises as ``load_model``."""
        model = load_model(folder, options)
        self._models[model.digest] = model
        return model

    def add_image(self, image: bytes) -> str:
        """Learns an image, and returns its SHA-256."""
        sha256 = hashlib.sha256(image).hexdigest()
        self._images[sha256] = image
        return sha256

    def _answer(self, key: tuple[str, str]) -> tuple[float, ...] | None:
        if key not in self._answers:
            model, image = self._models.get(key[0]), self._images.get(key[1])
            if model is None or image is None:
                return None
            try:
                pixels = load_pixels(image, model.input_format)
            except ImageError:
                self._answers[key] = None
            else:
                self._answers[key] = tuple(model.run(pixels.array[np.newaxis])[0].tolist())
        return self._answers[key]

    def __getitem__(self, key: tuple[str, str]) -> tuple[float, ...]:
        answer = self._answer(key)
        if answer is None:
            raise KeyError(key)
        return answer

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((digest, sha256) for digest in self._models for sha256 in self._images)

    def __len__(self) -> int:
        return len(self._models) * len(self._images)


def find_options(flags: Sequence[str]) -> tuple[ServerConfig, EngineOptions]:
    """The settings of a server with these flags, and how it runs its models on this machine."""
    config = read_config(flags, {})
    return config, make_plan(config, count_processors()).options


def add_served(golden: Golden, flags: Sequence[str]) -> list[OnnxModel]:
    """Learns the models that a server with these flags serves, the default first."""
    config, options = find_options(flags)
    return [golden.add_model(folder, options) for folder in find_wanted(config.models, config.model)]


def make_images(folder: Path) -> list[bytes]:
    """Images to send: those of a folder, each as it is, turned round, and as a JPEG."""
    images = []
    for data in read_images(folder)[:7]:
        image = Image.open(io.BytesIO(data))
        images += [data, encode(image.transpose(Image.Transpose.ROTATE_180), "PNG"), encode(image, "JPEG", quality=90)]
    return images


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
