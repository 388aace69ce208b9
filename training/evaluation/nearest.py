"""What needs no learning at all: how far the nearest neighbour on tiny images gets, and the share of mid-grey pixels.

The first is the leakage test, and both are the baselines of every network.

Slices of one person resemble each other more than slices of two people with the same disease. So on a random split of
slices the nearest training image is often the same person, and carries the right label for the wrong reason. What is
left once people are held out is what the pixels say about the disease.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from training.data.duplicates import shrink
from training.data.groups import assign_folds
from training.evaluation.figures import Bools, Floats

PIXEL_CHUNK = 256
"""Images that are in memory at once: 16 MB of 256 x 256 pixels."""

FOLDS = 5

TRIVIAL_GREY = (60, 169)
"""Grey values of brain in a brain window; see ``score_trivially``."""

MID_GREY = "share of mid-grey pixels"

ReadPixels = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""From positions [n] to images, uint8 [n, H, W]."""


@dataclass(frozen=True)
class LeakageTest:
    """Accuracy of the nearest neighbour's label under two splits; each in [0, 1], over all images."""

    random: float
    """Folds of slices at random: the same person may be on both sides."""

    grouped: float
    """Folds of whole people."""

    majority: float
    """Always answering the class that is more frequent in the training folds."""

    images: int
    folds: int


@dataclass(frozen=True)
class Nearest:
    """Answers of the nearest neighbour on 32 x 32 pixels, beside a model's on the same images."""

    is_right: Bools
    """[N], whether the nearest image of other people has the image's own label."""

    random_accuracy: float
    """Share of right answers where slices are split at random, in [0, 1]."""


def score_trivially(images: NDArray[np.uint8]) -> Floats:
    """Returns the share of mid-grey pixels of each image, uint8 [N, H, W, C]: how much brain is in the slice.

    No learning, yet it ranks real slices at an AUC of 0.7 to 0.8, since bleeds are seen where there is brain: the
    baseline that every model has to beat.
    """
    low, high = TRIVIAL_GREY
    grey = images[..., 0]
    share: Floats = ((grey >= low) & (grey <= high)).mean(axis=(1, 2))
    return share


def find_nearest_labels(
    train: NDArray[np.float32], train_targets: NDArray[np.int64], test: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Returns the class [T] of the training image that is nearest to each test image, by Euclidean distance.

    Args:
        train: float32 [N, D].
        train_targets: [N], class of each.
        test: float32 [T, D].
    """
    # Of 1024 pixels a search tree saves nothing.
    classifier = KNeighborsClassifier(n_neighbors=1, algorithm="brute").fit(train, train_targets)
    labels: NDArray[np.int64] = classifier.predict(test)
    return labels


def find_labels_in_folds(
    small: NDArray[np.float32], targets: NDArray[np.int64], fold: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns the class [N] of the image of the other folds that is nearest to each image; ``fold`` [N] from 0."""
    labels = np.empty_like(targets)
    for index in range(int(fold.max()) + 1):
        held_out = fold == index
        labels[held_out] = find_nearest_labels(small[~held_out], targets[~held_out], small[held_out])
    return labels


def compare_splits(
    small: NDArray[np.float32],
    targets: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    folds: int = FOLDS,
    seed: int = 7,
) -> LeakageTest:
    """Evaluates the nearest neighbour by cross-validation, on slices at random and with people held out.

    Args:
        small: float32 [N, D], as ``shrink`` returns them.
        targets: [N], class of each image.
        groups: [N], person of each image, 0 to G-1.
        folds: number of folds.
        seed: seed of both splits.

    Raises:
        TrainingError: when there are fewer people of a class than folds.
    """
    at_random = assign_folds(np.arange(len(targets)), targets, folds, seed)
    by_person = assign_folds(groups, targets, folds, seed)
    majority = sum(
        int((targets[by_person == index] == np.bincount(targets[by_person != index]).argmax()).sum())
        for index in range(folds)
    )
    return LeakageTest(
        random=float((find_labels_in_folds(small, targets, at_random) == targets).mean()),
        grouped=float((find_labels_in_folds(small, targets, by_person) == targets).mean()),
        majority=majority / len(targets),
        images=len(targets),
        folds=folds,
    )


def shrink_images(read: ReadPixels, indices: NDArray[np.int64]) -> tuple[NDArray[np.float32], Floats]:
    """Returns the tiny images, float32 [n, 1024], and the trivial scores, [n], of the images at ``indices``."""
    small, trivial = [], []
    for start in range(0, len(indices), PIXEL_CHUNK):
        pixels = read(indices[start : start + PIXEL_CHUNK])
        small.append(shrink(pixels))
        trivial.append(score_trivially(pixels[..., np.newaxis]))
    return np.concatenate(small), np.concatenate(trivial)


def evaluate_nearest(
    train: NDArray[np.float32],
    train_targets: NDArray[np.int64],
    test: NDArray[np.float32],
    test_targets: NDArray[np.int64],
    *,
    seed: int,
) -> Nearest:
    """Evaluates the nearest neighbour on the same test images as a network, and on a random split of the same sizes.

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
    learned, held_out = order[: len(train)], order[len(train) :]
    answers = find_nearest_labels(small[learned], targets[learned], small[held_out])
    return Nearest(is_right, float((answers == targets[held_out]).mean()))


def cross_validate_nearest(
    small: NDArray[np.float32], targets: NDArray[np.int64], groups: NDArray[np.int64], *, seed: int
) -> Nearest:
    """Evaluates the nearest neighbour by cross-validation within a set of images, for want of training images.

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
        is_right.append(find_labels_in_folds(small, targets, fold) == targets)
    return Nearest(is_right[0], float(is_right[1].mean()))
