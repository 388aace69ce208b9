"""The nearest neighbour on small images, and what it gives away about a split."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.duplicates import shrink, sum_blocks
from training.evaluation.nearest import compare_splits, find_nearest_labels


def test_small_images_are_block_means() -> None:
    """Each of the 32 x 32 values is the mean of its block."""
    pixels = np.random.default_rng(1).integers(0, 256, (3, 256, 256), np.uint8)
    small = shrink(pixels)
    assert small.shape == (3, 1024)
    assert small.dtype == np.float32
    assert small[2, 32 * 4 + 5] == pytest.approx(pixels[2, 32:40, 40:48].mean(), abs=1e-3)


def test_sums_of_blocks_are_the_means_exactly() -> None:
    """In 16 bits; images whose sums might not fit are refused."""
    pixels = np.random.default_rng(1).integers(0, 256, (3, 256, 256), np.uint8)
    assert np.array_equal(sum_blocks(pixels) / np.float32(64), shrink(pixels))
    assert (sum_blocks(np.full((1, 512, 512), 255, np.uint8)) == 255 * 256).all()
    with pytest.raises(ValueError, match="too many"):
        sum_blocks(np.zeros((1, 1024, 1024), np.uint8))


def test_nearest_label_is_that_of_brute_force() -> None:
    """What is found is what a loop over all distances finds."""
    rng = np.random.default_rng(2)
    train, test = rng.uniform(0, 255, (60, 16)).astype(np.float32), rng.uniform(0, 255, (25, 16)).astype(np.float32)
    targets = rng.integers(0, 2, 60)
    expected = [targets[((train - image) ** 2).sum(axis=1).argmin()] for image in test]
    small, places = np.concatenate([train, test]), np.arange(85)
    targets = np.concatenate([targets, rng.integers(0, 2, 25)])
    for block in (7, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("training.evaluation.nearest.BLOCK", block)
            assert find_nearest_labels(small, targets, places[:60], places[60:]).tolist() == expected


def draw_people(rng: np.random.Generator, *, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forty people with ten slices each: a person's slices are alike, and the label adds ``effect`` to one pixel."""
    groups = np.repeat(np.arange(40), 10)
    targets = groups % 2
    small = rng.normal(0, 30, (40, 64))[groups] + rng.normal(0, 3, (400, 64))
    small[:, 0] += effect * targets
    return small.astype(np.float32), targets, groups


def test_leakage_shows_as_a_gap() -> None:
    """Labels that pixels say nothing about are found on random slices, and not once people are held out."""
    result = compare_splits(*draw_people(np.random.default_rng(3), effect=0))
    assert result.random > 0.99
    assert result.grouped < 0.75
    assert result.majority == pytest.approx(0.5, abs=0.01)


def test_real_signal_survives_grouping() -> None:
    """What the label does to the pixels is found in people who were not seen."""
    assert compare_splits(*draw_people(np.random.default_rng(3), effect=2000)).grouped == 1
