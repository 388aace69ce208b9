"""What needs no training, on the images that a network is judged on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.data.split import assign_folds
from training.data.thumbnails import shrink
from training.evaluation.figures import Floats
from training.evaluation.measure import Nearest, score_trivially
from training.evaluation.nearest import FOLDS, find_nearest_labels

CHUNK = 256
"""Images that are in memory at once: 16 MB of 256 x 256 pixels."""

ReadPixels = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""From positions [n] to images, uint8 [n, H, W]."""


def shrink_images(read: ReadPixels, indices: NDArray[np.int64]) -> tuple[NDArray[np.float32], Floats]:
    """Returns the tiny images, float32 [n, 1024], and the trivial scores, [n], of the images at ``indices``."""
    small, trivial = [], []
    for start in range(0, len(indices), CHUNK):
        pixels = read(indices[start : start + CHUNK])
        small.append(shrink(pixels))
        trivial.append(score_trivially(pixels[..., np.newaxis]))
    return np.concatenate(small), np.concatenate(trivial)


def judge_nearest(
    train: NDArray[np.float32],
    train_targets: NDArray[np.int64],
    test: NDArray[np.float32],
    test_targets: NDArray[np.int64],
    *,
    seed: int,
) -> Nearest:
    """Judges the nearest neighbour on the same test images as a network, and on a random split of the same sizes.

    Args:
        train: float32 [N, D], tiny images of the people whom the network has learned from.
        train_targets: [N], their classes.
        test: float32 [T, D], tiny images of other people.
        test_targets: [T], their classes.
        seed: seed of the random split, whose figure is leakage.
    """
    is_right = find_nearest_labels(train, train_targets, test) == test_targets
    small, targets = np.concatenate([train, test]), np.concatenate([train_targets, test_targets])
    order = np.random.default_rng(seed).permutation(len(targets))
    learned, judged = order[: len(train)], order[len(train) :]
    answers = find_nearest_labels(small[learned], targets[learned], small[judged])
    return Nearest(is_right, float((answers == targets[judged]).mean()))


def judge_nearest_within(
    small: NDArray[np.float32], targets: NDArray[np.int64], groups: NDArray[np.int64], *, seed: int
) -> Nearest:
    """Judges the nearest neighbour by cross-validation within a set of images, for want of training images.

    Args:
        small: float32 [N, D], tiny images.
        targets: [N], their classes.
        groups: [N], person of each image, 0 to G-1: other people are on the other side of a fold.
        seed: seed of both splits.

    Raises:
        TrainingError: when there are fewer people of a class than folds.
    """
    is_right = []
    for people in (groups, np.arange(len(targets))):
        fold = assign_folds(people, targets, FOLDS, seed)
        answers = np.empty_like(targets)
        for index in range(FOLDS):
            held_out = fold == index
            answers[held_out] = find_nearest_labels(small[~held_out], targets[~held_out], small[held_out])
        is_right.append(answers == targets)
    return Nearest(is_right[0], float(is_right[1].mean()))
