"""The split into training, validation and test images: by patient, stratified by class, seeded.

Slices of one person look alike. A network that has seen one of them knows the others, so a person in two splits makes
the figures worthless; see ``assert_disjoint``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates import find_near_duplicates
from training.data.labels import ImageSet, read_rows, require_columns
from training.data.pixels import PixelStore, write_csv
from training.errors import TrainingError, count_nouns
from training.settings.train import TrainConfig

SPLITS = ("train", "validation", "test")
SPLIT_FILE = "split.csv"
NAMED_PAIRS = 3
"""Near-duplicates that a warning names; it counts the rest."""

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

    pairs: NDArray[np.int64]
    """[P, 2], images of different patients that look the same."""

    def indices(self, split: str) -> NDArray[np.int64]:
        """Images of one of ``SPLITS``."""
        return np.flatnonzero(self.split == SPLITS.index(split))


def group_data(config: TrainConfig, images: ImageSet, store: PixelStore, digests: tuple[str, ...]) -> Data:
    """Finds out which images belong together, and says what is wrong with them; all are training images yet."""
    warnings = [*([] if images.has_patients else [LEAKAGE_WARNING]), *images.warnings]
    copies = len(digests) - len(set(digests))
    if copies:
        warnings.append(f"{copies:,} images are copies of others, byte for byte; copies are kept in one split")
    contradictions = len(set(zip(digests, images.targets.tolist(), strict=True))) - len(set(digests))
    if contradictions:
        warnings.append(f"WARNING: {contradictions:,} images have copies with the other label: one label is wrong")
    groups = join_groups(images.patients, digests)
    pairs = find_near_duplicates(store.small, groups)
    if config.near_duplicates == "join" and not config.split and not keeps_folders(config, images):
        groups = join_groups(images.patients, digests, pairs)
    print(f"{len(images.files):,} images of {', '.join(images.labels)}", *warnings, sep="\n", file=sys.stderr)
    return Data(images, store, digests, groups, np.zeros_like(groups), tuple(warnings), pairs)


def split_data(config: TrainConfig, data: Data, folder: Path) -> Data:
    """Splits the images by patient, or as --split or their folders do, and writes ``split.csv``.

    Raises:
        TrainingError: when a split would lack a class, or --split or the folders do not fit the images.
    """
    images = data.images
    if config.split:
        split = read_split(config.split, images, data.digests)
    elif keeps_folders(config, images):
        split = keep_split(data, config.validation, config.test, config.seed)
    else:
        split = split_groups(
            data.groups, images.targets, config.validation, config.test, config.seed, labels=images.labels
        )
    return record_split(replace(data, split=split), folder)


def record_split(data: Data, folder: Path) -> Data:
    """Asserts that nothing is in two splits, and writes ``split.csv``; returns the data with warnings of the split."""
    images = data.images
    assert_disjoint(data.split, patient=images.patients, digest=data.digests)
    rows = zip(images.files, images.targets, images.patients, data.digests, data.split, strict=True)
    write_csv(
        folder / SPLIT_FILE,
        ("file", "label", "patient", "sha256", "split"),
        [(file, images.labels[label], patient, digest, SPLITS[part]) for file, label, patient, digest, part in rows],
    )
    sizes = ", ".join(f"{len(data.indices(name)):,} {name}" for name in SPLITS)
    if not len(data.pairs):
        print(sizes, file=sys.stderr)
        return data
    warning = describe_pairs(data.pairs, images.files, data.split)
    print(sizes, warning, sep="\n", file=sys.stderr)
    return replace(data, warnings=(*data.warnings, warning))


def describe_pairs(pairs: NDArray[np.int64], files: Sequence[str], split: NDArray[np.int64]) -> str:
    """Returns one line about near-duplicates of different patients; those in different splits come first."""
    apart = split[pairs[:, 0]] != split[pairs[:, 1]]
    ordered = pairs[np.argsort(~apart, kind="stable")]
    examples = "; ".join(f"{files[first]} and {files[second]}" for first, second in ordered[:NAMED_PAIRS])
    many = f"{count_nouns(len(pairs), 'pair')} of images of different patients look the same"
    if apart.any():
        return f"WARNING: {many}, {apart.sum():,} of them in different splits: {examples}"
    return f"{many} and are kept in one split: {examples}"


def read_split(path: Path, images: ImageSet, digests: Sequence[str]) -> NDArray[np.int64]:
    """Returns the split [N] of the images as a run's ``split.csv`` has it, index into ``SPLITS``.

    Raises:
        TrainingError: when an image is not in the file, has other bytes there, a patient is in two splits, or a split
            lacks a class.
    """
    columns, rows = read_rows(path)
    require_columns(path, columns, "file", "sha256", "split")
    recorded = {row["file"]: (row["sha256"], row["split"]) for _, row in rows}
    missing = [file for file in images.files if file not in recorded]
    if missing:
        raise TrainingError(f"--split {path} lacks {count_nouns(len(missing), 'image')}; the first: {missing[0]}")
    split = np.empty(len(images.files), np.int64)
    for index, (file, digest) in enumerate(zip(images.files, digests, strict=True)):
        known_digest, name = recorded[file]
        if known_digest != digest:
            raise TrainingError(f"--split {path} is about another {file}: its SHA-256 there is not that of the image")
        if name not in SPLITS:
            raise TrainingError(f"--split {path}: the split of {file} is {name!r}, not one of {', '.join(SPLITS)}")
        split[index] = SPLITS.index(name)
    try:
        assert_disjoint(split, patient=images.patients, digest=digests)
    except AssertionError as error:
        raise TrainingError(f"--split {path} cannot be used: {error}") from None
    require_classes(split, images.targets, SPLITS, join_groups(images.patients, digests), images.labels, "make another")
    return split


def keeps_folders(config: TrainConfig, images: ImageSet) -> bool:
    """Whether the images stay in the training, validation and test set that their folders say."""
    return bool(images.parts) and config.folder_split == "keep"


def keep_split(data: Data, validation: float, test: float, seed: int) -> NDArray[np.int64]:
    """Returns the split [N] of the folders; a set that has no folder is cut from the training images, by patient.

    Args:
        data: the images.
        validation: share of the training images, in (0, 1).
        test: share of the training images, in (0, 1).
        seed: seed of the order.

    Raises:
        TrainingError: when there are no training images, a patient or a file is in two sets, or a set lacks a class.
    """
    images = data.images
    split = np.array([SPLITS.index(part) for part in images.parts], np.int64)
    first: dict[tuple[str, str], int] = {}
    for index, (patient, digest) in enumerate(zip(images.patients, data.digests, strict=True)):
        for kind, value in ((f"patient {patient}", patient), ("the same bytes", digest)):
            other = first.setdefault((kind, value), index) if value is not None else index
            if split[other] != split[index]:
                raise TrainingError(
                    f"the folders of {images.root} cannot be kept as the split: {images.files[other]} and "
                    f"{images.files[index]} are of {kind}, and figures on such a split mean nothing; --folder-split "
                    "merge makes another, by patient (where the names say too much, labels.csv says who it is)"
                )
    absent = [name for name in SPLITS if name not in images.parts]
    if "train" in absent:
        raise TrainingError(f"{images.root} has no folder of training images beside {', '.join(set(images.parts))}")
    if absent:
        shares = {"validation": validation, "test": test}
        rest = np.flatnonzero(split == SPLITS.index("train"))
        numbers = np.unique(data.groups[rest], return_inverse=True)[1]
        share = [1 - sum(shares[name] for name in absent), *(shares[name] for name in absent)]
        places = np.array([SPLITS.index(name) for name in ("train", *absent)])
        split[rest] = places[share_groups(numbers, images.targets[rest], share, seed)]
    cut = f"; {' and '.join(absent)} cut from the training images by patient" if absent else ""
    print(f"the split is that of the folders{cut}", file=sys.stderr)
    require_classes(split, images.targets, SPLITS, data.groups, images.labels, "or take --folder-split merge")
    return split


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
