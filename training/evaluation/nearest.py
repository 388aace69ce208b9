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
from sklearn.neighbors import NearestNeighbors

from training.data.duplicates import SIDE, sum_blocks
from training.data.groups import assign_folds
from training.evaluation.figures import Bools, Floats

PIXEL_CHUNK = 64
"""Images that are in memory at once: 4 MB of 256 x 256 pixels."""

BLOCK = 2048
"""Tiny images that are compared at once, on either side: 8 MB, so that memory hardly grows with their number."""

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
    small: NDArray[np.generic], targets: NDArray[np.int64], learned: NDArray[np.int64], asked: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns the class [A] of the learned image that is nearest to each asked one, by Euclidean distance.

    Args:
        small: [N, D], numbers that float32 holds exactly.
        targets: [N], class of each.
        learned: positions among which is searched.
        asked: [A], positions of the images that are asked about.
    """
    labels = np.empty(len(asked), np.int64)
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        images = small[block].astype(np.float32)
        nearest, distance = np.zeros(len(block), np.int64), np.full(len(block), np.inf)
        for first in range(0, len(learned), BLOCK):
            known = learned[first : first + BLOCK]
            # Of 1024 pixels a search tree saves nothing.
            search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(small[known].astype(np.float32))
            distances, indices = search.kneighbors(images)
            is_nearer = distances[:, 0] < distance
            distance[is_nearer] = distances[is_nearer, 0]
            nearest[is_nearer] = known[indices[is_nearer, 0]]
        labels[start : start + BLOCK] = targets[nearest]
    return labels


def find_labels_in_folds(
    small: NDArray[np.generic], targets: NDArray[np.int64], fold: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns the class [N] of the image of the other folds that is nearest to each image; ``fold`` [N] from 0."""
    labels = np.empty_like(targets)
    for index in range(int(fold.max()) + 1):
        asked = np.flatnonzero(fold == index)
        labels[asked] = find_nearest_labels(small, targets, np.flatnonzero(fold != index), asked)
    return labels


def compare_splits(
    small: NDArray[np.generic],
    targets: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    folds: int = FOLDS,
    seed: int = 7,
) -> LeakageTest:
    """Evaluates the nearest neighbour by cross-validation, on slices at random and with people held out.

    Args:
        small: [N, D], tiny images.
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


def shrink_images(read: ReadPixels, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint16], Floats]:
    """Returns the tiny images, see ``sum_blocks``, and the trivial scores, [n], of the images at ``indices``."""
    small, trivial = np.empty((len(indices), SIDE**2), np.uint16), np.empty(len(indices))
    for start in range(0, len(indices), PIXEL_CHUNK):
        pixels = read(indices[start : start + PIXEL_CHUNK])
        small[start : start + PIXEL_CHUNK] = sum_blocks(pixels)
        trivial[start : start + PIXEL_CHUNK] = score_trivially(pixels[..., np.newaxis])
    return small, trivial


def evaluate_nearest(
    small: NDArray[np.generic],
    targets: NDArray[np.int64],
    learned: NDArray[np.int64],
    asked: NDArray[np.int64],
    *,
    seed: int,
) -> Nearest:
    """Evaluates the nearest neighbour on the same test images as a network, and on a random split of the same sizes.

    Args:
        small: [N, D], tiny images.
        targets: [N], their classes.
        learned: positions of the images of people whom the network has learned from.
        asked: [A], positions of the test images, of other people.
        seed: seed of the random split, whose figure is leakage.
    """
    is_right = find_nearest_labels(small, targets, learned, asked) == targets[asked]
    everything = np.concatenate([learned, asked])
    order = everything[np.random.default_rng(seed).permutation(len(everything))]
    learned, asked = order[: len(learned)], order[len(learned) :]
    answers = find_nearest_labels(small, targets, learned, asked)
    return Nearest(is_right, float((answers == targets[asked]).mean()))


def cross_validate_nearest(
    small: NDArray[np.generic], targets: NDArray[np.int64], groups: NDArray[np.int64], *, seed: int
) -> Nearest:
    """Evaluates the nearest neighbour by cross-validation within a set of images, for want of training images.

    Args:
        small: [N, D], tiny images.
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
