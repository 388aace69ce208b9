"""The split into training, validation and test images: by patient, stratified by class, seeded.

Slices of one person look alike. A network that has seen one of them knows the others, so a person in two splits makes
the figures worthless; see ``assert_disjoint``.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data import ImageSet, PixelStore, write_csv
from training.errors import TrainingError

SPLITS = ("train", "validation", "test")
SPLIT_FILE = "split.csv"

LEAKAGE_WARNING = (
    "WARNING: no patient ids. Slices of one person may be in training and in test at once: leakage between the splits "
    "CANNOT BE EXCLUDED, and every figure of this run may be far too good. Give --patient-pattern, or state "
    "--one-image-per-patient where that is true."
)


@dataclass(frozen=True)
class Data:
    """The images of a run; arrays are [N], in the order of ``images.files``."""

    images: ImageSet
    store: PixelStore
    digests: tuple[str, ...]
    groups: NDArray[np.int64]
    split: NDArray[np.int64]
    warnings: tuple[str, ...]

    def indices(self, split: str) -> NDArray[np.int64]:
        """Images of one of ``SPLITS``."""
        return np.flatnonzero(self.split == SPLITS.index(split))


def group_data(images: ImageSet, store: PixelStore, digests: tuple[str, ...]) -> Data:
    """Finds out which images belong together, and says what is wrong with them; all are training images yet."""
    warnings = [*([] if images.has_patients else [LEAKAGE_WARNING]), *images.warnings]
    copies = len(digests) - len(set(digests))
    if copies:
        warnings.append(f"{copies:,} images are copies of others, byte for byte; copies are kept in one split")
    contradictions = len(set(zip(digests, images.targets.tolist(), strict=True))) - len(set(digests))
    if contradictions:
        warnings.append(f"WARNING: {contradictions:,} images are in both class folders: one label is wrong")
    groups = join_groups(images.patients, digests)
    print(f"{len(images.files):,} images of {', '.join(images.labels)}", *warnings, sep="\n", file=sys.stderr)
    return Data(images, store, digests, groups, np.zeros_like(groups), tuple(warnings))


def split_data(config: TrainConfig, data: Data, folder: Path) -> Data:
    """Splits the images by patient, or as an unfinished run in the folder did, and writes ``split.csv``."""
    split = read_split(folder / SPLIT_FILE, data.images.files)
    if split is None:
        split = split_groups(
            data.groups, data.images.targets, config.validation, config.test, config.seed, labels=data.images.labels
        )
    data = replace(data, split=split)
    record_split(data, folder)
    return data


def record_split(data: Data, folder: Path) -> None:
    """Asserts that nothing is in two splits, and writes ``split.csv``."""
    images = data.images
    assert_disjoint(data.split, patient=images.patients, digest=data.digests)
    rows = zip(images.files, images.targets, images.patients, data.digests, data.split, strict=True)
    write_csv(
        folder / SPLIT_FILE,
        ("file", "label", "patient", "sha256", "split"),
        [(file, images.labels[label], patient, digest, SPLITS[part]) for file, label, patient, digest, part in rows],
    )
    print(", ".join(f"{len(data.indices(name)):,} {name}" for name in SPLITS), file=sys.stderr)


def read_split(path: Path, files: Sequence[str]) -> NDArray[np.int64] | None:
    """Returns the split [N] of files that a ``split.csv`` states, None where it is not there or not complete."""
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as stream:
        split_of = {row["file"]: row["split"] for row in csv.DictReader(stream)}
    if not split_of.keys() >= set(files) or not set(split_of.values()) <= set(SPLITS):
        return None
    return np.array([SPLITS.index(split_of[file]) for file in files], np.int64)


def join_groups(patients: Sequence[str | None], digests: Sequence[str]) -> NDArray[np.int64]:
    """Returns a group number per image: the same patient or the same bytes make the same group.

    Joined transitively: two patients that share a file are one group.
    """
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
        f"{people:,} {'patient' if people == 1 else 'patients'} (images that belong together count as one); {advice}"
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
