"""Images that look the same: copies are found however they were saved, and different heads are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from server.images.preprocess import load_pixels
from training.data import duplicates
from training.data.duplicates import NO_HASH, find_near_duplicates, hash_images, shrink, transform_images
from training.data.format import INPUT_FORMAT
from training.phantom.dataset import choose_kind, generate_slice

HEADS = 40


def save(image: Image.Image, image_format: str = "PNG", **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "recompressed": lambda image: save(image, "JPEG", quality=40),
    "enlarged": lambda image: save(image.resize((512, 512), Image.Resampling.BICUBIC)),
    "reduced": lambda image: save(image.resize((180, 180), Image.Resampling.BILINEAR), "JPEG", quality=80),
    "brightened": lambda image: save(image.point(lambda value: min(255, value * 1.1 + 8)), "JPEG", quality=80),
    "darkened": lambda image: save(image.point(lambda value: value * 0.8)),
}


def make_small(data: list[bytes]) -> np.ndarray:
    """Returns the small images of files, as the pixel store keeps them."""
    pixels = np.stack([load_pixels(file, INPUT_FORMAT).array[..., 0] for file in data])
    return np.rint(shrink(pixels)).astype(np.uint8)


@pytest.fixture(scope="module")
def heads() -> list[Image.Image]:
    """Synthetic slices of different heads."""
    return [
        Image.fromarray(generate_slice(np.random.default_rng([1, index]), kind=choose_kind(index)).pixels)
        for index in range(HEADS)
    ]


def test_different_heads_are_no_copies(heads: list[Image.Image]) -> None:
    """No two different slices make a pair."""
    assert find_near_duplicates(make_small([save(head) for head in heads])).tolist() == []


@pytest.mark.parametrize("change", COPIES)
def test_changed_copy_is_found(heads: list[Image.Image], change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slice and its copy make a pair, and nothing else does, in whatever chunks the search goes."""
    monkeypatch.setattr(duplicates, "HASH_ROWS", 7)
    monkeypatch.setattr(duplicates, "PAIR_CHUNK", 3)
    small = make_small([save(head) for head in heads] + [COPIES[change](head) for head in heads])
    assert find_near_duplicates(small).tolist() == [[index, HEADS + index] for index in range(HEADS)]


def test_hash_alone_would_not_do(heads: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are so alike that the hash gives false pairs: the pixels have to agree as well."""
    monkeypatch.setattr(duplicates, "CORRELATION_LIMIT", -1.0)
    monkeypatch.setattr(duplicates, "HASH_LIMIT", 12)
    assert len(find_near_duplicates(make_small([save(head) for head in heads]))) > 0


def test_pairs_within_a_group_are_left_out(heads: list[Image.Image]) -> None:
    """Neighbouring slices of a patient may look the same; what matters is who else looks so."""
    small = make_small([save(heads[index]) for index in (0, 0, 0, 1)])
    assert find_near_duplicates(small, np.array([5, 5, 6, 7])).tolist() == [[0, 2], [1, 2]]


def test_blank_images_are_no_copies_of_each_other() -> None:
    """Slices above the head are all black or noise; they must not make one group of all patients."""
    rng = np.random.default_rng(4)
    blank = [np.zeros((3, 1024)), np.full((3, 1024), 200), rng.integers(0, 4, (3, 1024))]
    small = np.concatenate(blank).astype(np.uint8)
    assert (hash_images(small, transform_images(small)) == NO_HASH).all()
    assert find_near_duplicates(small).tolist() == []


def test_hash_of_a_slice_is_never_that_of_a_blank_one(heads: list[Image.Image]) -> None:
    """Half of the bits of a hash are set."""
    small = make_small([save(head) for head in heads])
    assert (hash_images(small, transform_images(small)) != NO_HASH).all()
