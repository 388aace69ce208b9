"""Splits that are taken from elsewhere: the data set's own, or that of an earlier run; and what such a split leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.groups import SPLITS, assert_disjoint, join_groups, require_classes, share_groups
from training.data.labels import ImageSet
from training.data.table import LABELS_FILE, read_rows, require_columns
from training.errors import TrainingError, count_nouns
from training.settings.train import AUTO, GIVEN, MERGE, TrainConfig

NAMED_PAIRS = 3
"""Pairs of images that a finding names; it counts the rest."""


@dataclass(frozen=True)
class Shared:
    """What is in two parts of a split."""

    count: int
    examples: tuple[tuple[str, str], ...]
    """Files, the first few pairs of images of different parts."""

    def name_examples(self) -> str:
        """Returns ``a.png and b.png; c.png and d.png; ...``."""
        more = "; …" if self.count > len(self.examples) else ""
        return "; ".join(f"{first} and {second}" for first, second in self.examples) + more


@dataclass(frozen=True)
class SplitCheck:
    """What the split that a data set brings has in two of its parts."""

    source: str
    """What says which image is in which part."""

    cut: tuple[str, ...]
    """Parts that it does not bring: they were cut from its training images, by patient."""

    has_patients: bool
    """Whether it is known who each image shows; otherwise shared patients cannot be found."""

    patients: Shared
    copies: Shared
    """Files that are the same, byte for byte."""

    near: Shared
    """Pairs of images of different patients that look the same."""

    test: int
    """Test images."""

    known: int
    """Those among them whose patient is in training or validation, or that have a copy or a near-copy there."""

    @property
    def leaks(self) -> bool:
        """Whether anything is in two parts."""
        return any(shared.count for _, shared in self.list_findings())

    def list_findings(self) -> list[tuple[str, Shared]]:
        """Returns what is in two parts, each with its number in words."""
        return [
            (count_nouns(self.patients.count, "patient"), self.patients),
            (f"{count_nouns(self.copies.count, 'file')} (byte for byte)", self.copies),
            (f"{count_nouns(self.near.count, 'pair')} of images of different patients that look the same", self.near),
        ]

    def describe(self) -> str:
        """Says in a sentence or two what was taken and what was found; nothing in it names an image or a patient."""
        cut = f"; {' and '.join(self.cut)} cut from its training images by patient" if self.cut else ""
        unknown = "" if self.has_patients else "; who the images show is not known, so shared patients cannot be found"
        whole = f"the split is the data set's own ({self.source}){cut}{unknown}"
        found = [what for what, shared in self.list_findings() if shared.count]
        if not found:
            return f"{whole}; nothing of it was found in two parts: no patient, no file and no near-copy"
        return (
            f"WARNING: {whole}. It LEAKS: in two parts of it are {' and '.join(found)}. Known from training or "
            f"validation are {self.known:,} of {count_nouns(self.test, 'test image')}, so every figure may be far too "
            "good"
        )


def brings_split(config: TrainConfig, images: ImageSet) -> bool:
    """Whether the images stay in the parts of the split that their data set brings."""
    return bool(images.parts) and config.split in (AUTO, GIVEN)


def check_request(config: TrainConfig, images: ImageSet) -> None:
    """Checks that the split that is asked for can be had of the images, before any of them is decoded.

    Raises:
        TrainingError: it cannot.
    """
    path = config.split_file
    if path and not path.is_file():
        raise TrainingError(f"--split {path} is neither {AUTO}, {GIVEN} nor {MERGE}, nor a file")
    if config.split == GIVEN and not images.parts:
        raise TrainingError(
            f"{images.root} brings no split: it has neither folders train, val and test nor a column split in a "
            f"{LABELS_FILE} that names them; without --split {GIVEN} it is split by patient"
        )
    if not brings_split(config, images):
        return
    if config.folds:
        raise TrainingError(
            f"--folds holds every image out once, those of the data set's own test part too; --split {MERGE} says so"
        )
    if "" in images.parts:
        raise TrainingError(
            f"{images.root / LABELS_FILE} says of {count_nouns(images.parts.count(''), 'image')} not which part of the "
            f"split they are in (train, val or test), as it does of others; the first: "
            f"{images.files[images.parts.index('')]}; --split {MERGE} makes a split of all, by patient"
        )
    if "train" not in images.parts:
        raise TrainingError(f"{images.root} has no training images beside {', '.join(sorted(set(images.parts)))}")


def read_split(path: Path, images: ImageSet, digests: Sequence[str], *, may_leak: bool = False) -> NDArray[np.int64]:
    """Returns the split [N] of the images as a run's ``split.csv`` has it, index into ``SPLITS``.

    Raises:
        TrainingError: when an image is not in the file, has other bytes there, a patient is in two splits (unless it
            ``may_leak``), or a split lacks a class.
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
    if not may_leak:
        try:
            assert_disjoint(split, patient=images.patients, digest=digests)
        except AssertionError as error:
            raise TrainingError(f"--split {path} cannot be used: {error}") from None
    require_classes(split, images.targets, SPLITS, join_groups(images.patients, digests), images.labels, "make another")
    return split


def take_split(
    images: ImageSet, groups: NDArray[np.int64], validation: float, test: float, seed: int
) -> NDArray[np.int64]:
    """Returns the split [N] that the data set brings; a part that it does not bring is cut from train, by patient.

    Args:
        images: their ``parts`` are all known, and some are train.
        groups: [N], images that belong together.
        validation: share of the training images, in (0, 1).
        test: share of the training images, in (0, 1).
        seed: seed of the order.

    Raises:
        TrainingError: a part lacks a class.
    """
    split = number_parts(images.parts)
    if absent := find_absent(images):
        shares = {"validation": validation, "test": test}
        rest = np.flatnonzero(split == SPLITS.index("train"))
        numbers = np.unique(groups[rest], return_inverse=True)[1]
        share = [1 - sum(shares[name] for name in absent), *(shares[name] for name in absent)]
        places = np.array([SPLITS.index(name) for name in ("train", *absent)])
        split[rest] = places[share_groups(numbers, images.targets[rest], share, seed)]
    require_classes(split, images.targets, SPLITS, groups, images.labels, f"or take --split {MERGE}")
    return split


def number_parts(parts: Sequence[str]) -> NDArray[np.int64]:
    """Returns parts [N] as index into ``SPLITS``; -1 for an image that is in none."""
    return np.array([SPLITS.index(part) if part else -1 for part in parts], np.int64)


def find_absent(images: ImageSet) -> tuple[str, ...]:
    """Returns the parts that the data set's own split does not have."""
    return tuple(name for name in SPLITS if name not in images.parts)


def check_split(
    images: ImageSet, digests: Sequence[str], pairs: NDArray[np.int64], split: NDArray[np.int64]
) -> tuple[SplitCheck, NDArray[np.bool_]]:
    """Looks for what is in two parts of a split.

    Args:
        images: N images.
        digests: [N], SHA-256 of each file.
        pairs: [P, 2], images of different patients that look the same.
        split: [N], index into ``SPLITS``; -1 for an image that is in no part.

    Returns:
        The findings, and [N], true for test images that are known from another part.
    """
    is_test = split == SPLITS.index("test")
    is_outside = ~is_test & (split >= 0)
    near = pairs[(split[pairs] >= 0).all(axis=1) & (split[pairs[:, 0]] != split[pairs[:, 1]])]
    known = np.zeros(len(split), bool)
    known[near[is_outside[near].any(axis=1)]] = True
    for keys in (images.patients, digests):
        outside = {key for key, is_one in zip(keys, is_outside.tolist(), strict=True) if is_one} - {None}
        known |= np.array([key in outside for key in keys], bool)
    known &= is_test
    check = SplitCheck(
        source=images.parts_source,
        cut=find_absent(images),
        has_patients=images.has_patients,
        patients=name_pairs(find_shared(images.patients, split), images.files),
        copies=name_pairs(find_shared(digests, split), images.files),
        near=name_pairs(near, images.files),
        test=int(is_test.sum()),
        known=int(known.sum()),
    )
    return check, known


def find_shared(keys: Sequence[str | None], split: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns for each key that is in two parts of a split a pair of images [P, 2] of different parts that have it."""
    first: dict[str, int] = {}
    pairs: dict[str, tuple[int, int]] = {}
    for index, (key, part) in enumerate(zip(keys, split.tolist(), strict=True)):
        if key is not None and part >= 0 and split[first.setdefault(key, index)] != part:
            pairs.setdefault(key, (first[key], index))
    return np.array(list(pairs.values()), np.int64).reshape(-1, 2)


def name_pairs(pairs: NDArray[np.int64], files: Sequence[str]) -> Shared:
    return Shared(len(pairs), tuple((files[first], files[second]) for first, second in pairs[:NAMED_PAIRS].tolist()))
