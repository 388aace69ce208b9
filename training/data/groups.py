"""Images that belong together, and how whole groups of them are dealt into the parts of a split, or into folds.

Slices of one person look alike. A network that has seen one of them knows the others, so a person in two splits makes
the figures worthless; see ``assert_disjoint``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError, count_nouns

SPLITS = ("train", "validation", "test")


def join_groups(
    patients: Sequence[str | None], digests: Sequence[str], pairs: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Returns a group number per image: the same patient, the same bytes or a pair make the same group.

    Joined transitively: two patients that share a file are one group.

    Args:
        patients: [N], None where not known.
        digests: [N], SHA-256 of each file.
        pairs: [P, 2], images that belong together, such as near-duplicates.
    """
    # SciPy's connected components are the same groups under other numbers, and the seeded split depends on the numbers.
    parents = list(range(len(patients)))

    def find_root(image: int) -> int:
        while parents[image] != image:
            parents[image] = parents[parents[image]]
            image = parents[image]
        return image

    first: dict[tuple[str, str], int] = {}
    for image, (patient, digest) in enumerate(zip(patients, digests, strict=True)):
        for key in (("digest", digest), *([("patient", patient)] if patient is not None else [])):
            parents[find_root(image)] = find_root(first.setdefault(key, image))
    for first_image, second_image in pairs.tolist() if pairs is not None else ():
        parents[find_root(second_image)] = find_root(first_image)
    roots = [find_root(image) for image in range(len(parents))]
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def split_groups(
    groups: NDArray[np.int64],
    targets: NDArray[np.int64],
    validation: float,
    test: float,
    seed: int,
    *,
    labels: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """Assigns whole groups to training, validation and test, each class as close to its shares as groups allow.

    Args:
        groups: [N], group of each image, 0 to G-1.
        targets: [N], class of each image, 0 to C-1.
        validation: share of the images, in (0, 1).
        test: share of the images, in (0, 1).
        seed: seed of the order.
        labels: the classes' names, for the error.

    Returns:
        [N], index into ``SPLITS`` of each image.

    Raises:
        TrainingError: when a split would lack a class.
    """
    split = share_groups(groups, targets, (1 - validation - test, validation, test), seed)
    require_classes(split, targets, SPLITS, groups, labels, "add images, or change --validation and --test")
    return split


def assign_folds(
    groups: NDArray[np.int64],
    targets: NDArray[np.int64],
    folds: int,
    seed: int,
    *,
    labels: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """Assigns whole groups to folds of about equal size and class balance.

    Args:
        groups: [N], group of each image, 0 to G-1.
        targets: [N], class of each image, 0 to C-1.
        folds: number of folds, at least 2.
        seed: seed of the order.
        labels: the classes' names, for the error.

    Returns:
        [N], fold of each image, 0 to ``folds`` - 1.

    Raises:
        TrainingError: when a fold would lack a class.
    """
    fold = share_groups(groups, targets, np.full(folds, 1 / folds), seed)
    names = [f"fold {index + 1}" for index in range(folds)]
    require_classes(fold, targets, names, groups, labels, "add patients, or take fewer --folds")
    return fold


def split_fold(
    folds: NDArray[np.int64],
    index: int,
    groups: NDArray[np.int64],
    targets: NDArray[np.int64],
    validation: float,
    seed: int,
    *,
    labels: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """Makes the split of one fold: the fold is the test set, validation is cut from the other folds.

    Args:
        folds: [N], as ``assign_folds`` returns them.
        index: fold to test on.
        groups: [N], group of each image.
        targets: [N], class of each image, 0 to C-1.
        validation: share of all images, in (0, 1).
        seed: seed of the order.
        labels: the classes' names, for the error.

    Returns:
        [N], index into ``SPLITS`` of each image.

    Raises:
        TrainingError: when a split would lack a class.
    """
    split = np.full(len(folds), SPLITS.index("test"))
    rest = np.flatnonzero(folds != index)
    share = validation * len(folds) / len(rest)
    numbers = np.unique(groups[rest], return_inverse=True)[1]
    split[rest] = share_groups(numbers, targets[rest], (1 - share, share), seed)  # the first two of SPLITS
    require_classes(split, targets, SPLITS, groups, labels, "add patients, or change --folds and --validation")
    return split


def share_groups(
    groups: NDArray[np.int64], targets: NDArray[np.int64], shares: Sequence[float] | NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """Assigns whole groups to parts so that each class comes as close to its shares as the groups allow.

    The largest groups go first, each to the part where it lowers the chi-square distance between wanted and assigned
    counts most (relative to a part's size, so that a small one is not left empty); equal ones go in seeded order.

    Args:
        groups: [N], group of each image, 0 to G-1.
        targets: [N], class of each image, 0 to C-1; every class has images.
        shares: [P], share of each part, positive; they add up to 1.
        seed: seed of the order.

    Returns:
        [N], part of each image, 0 to P-1.
    """
    counts = np.zeros((int(groups.max()) + 1, int(targets.max()) + 1), np.int64)
    np.add.at(counts, (groups, targets), 1)
    wanted = np.outer(shares, counts.sum(axis=0))
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    have = np.zeros_like(wanted)
    part_of_group = np.empty(len(counts), np.int64)
    for group in order:
        change = ((have + counts[group] - wanted) ** 2 - (have - wanted) ** 2) / wanted
        part_of_group[group] = np.argmin(change.sum(axis=1))
        have[part_of_group[group]] += counts[group]
    return part_of_group[groups]


def require_classes(
    parts: NDArray[np.int64],
    targets: NDArray[np.int64],
    names: Sequence[str],
    groups: NDArray[np.int64],
    labels: Sequence[str] | None,
    advice: str,
) -> None:
    """Raises the error unless every part has images of every class."""
    classes = int(targets.max()) + 1
    counts = np.zeros((len(names), classes), np.int64)
    np.add.at(counts, (parts, targets), 1)
    if counts.all():
        return
    part, label = np.argwhere(counts == 0)[0]
    people = len(np.unique(groups[targets == label]))
    name = labels[label] if labels else f"{label + 1} of {classes}"
    raise TrainingError(
        f"too few patients or images to split: no image of class {name} is left for {names[part]}; the class has "
        f"{count_nouns(people, 'patient')} (images that belong together count as one); {advice}"
    )


def assert_disjoint(split: NDArray[np.int64], **identities: Sequence[str | None]) -> None:
    """Asserts that no identity (patient, file digest) is in two splits; images whose identity is None are not checked.

    Written as a raise, so that ``python -O`` does not remove it.
    """
    for kind, values in identities.items():
        seen: dict[str, int] = {}
        for value, part in zip(values, split.tolist(), strict=True):
            if value is not None and seen.setdefault(value, part) != part:
                raise AssertionError(f"{kind} {value!r} is in {SPLITS[seen[value]]} and in {SPLITS[part]}")
