"""The leakage test: how far the nearest neighbour gets on tiny images, with no learning at all.

Slices of one person resemble each other more than slices of two people with the same disease. So on a random split of
slices the nearest training image is often the same person, and carries the right label for the wrong reason. What is
left once people are held out is what the pixels say about the disease.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.split import assign_folds
from training.data.thumbnails import shrink as shrink

CHUNK = 512
"""Test images whose distances are held at once: 40 MB for 20,000 training images."""

FOLDS = 5


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


def find_nearest_labels(
    train: NDArray[np.float32], train_targets: NDArray[np.int64], test: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Returns the class [T] of the training image that is nearest to each test image, by Euclidean distance.

    Args:
        train: float32 [N, D].
        train_targets: [N], class of each.
        test: float32 [T, D].
    """
    # Centred first: the squares of raw grey values are so large that float32 would lose small distances.
    centre = train.mean(axis=0)
    train, test = train - centre, test - centre
    squares = np.einsum("nd,nd->n", train, train)
    nearest = np.empty(len(test), np.int64)
    for start in range(0, len(test), CHUNK):
        part = slice(start, start + CHUNK)
        # The test image's own square is the same for all candidates and is left out.
        nearest[part] = (squares - 2 * (test[part] @ train.T)).argmin(axis=1)
    return train_targets[nearest]


def compare_splits(
    small: NDArray[np.float32],
    targets: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    folds: int = FOLDS,
    seed: int = 7,
) -> LeakageTest:
    """Judges the nearest neighbour by cross-validation, on slices at random and with people held out.

    Args:
        small: float32 [N, D], as ``shrink`` returns them.
        targets: [N], class of each image.
        groups: [N], person of each image, 0 to G-1.
        folds: number of folds.
        seed: seed of both splits.

    Raises:
        TrainingError: when there are fewer people of a class than folds.
    """
    accuracies = []
    by_person = assign_folds(groups, targets, folds, seed)
    for fold in (assign_folds(np.arange(len(targets)), targets, folds, seed), by_person):
        correct = 0
        for index in range(folds):
            held_out = fold == index
            answers = find_nearest_labels(small[~held_out], targets[~held_out], small[held_out])
            correct += int((answers == targets[held_out]).sum())
        accuracies.append(correct / len(targets))
    majority = sum(
        int((targets[by_person == index] == np.bincount(targets[by_person != index]).argmax()).sum())
        for index in range(folds)
    )
    return LeakageTest(*accuracies, majority=majority / len(targets), images=len(targets), folds=folds)
