"""The split into training, validation and test images: by patient, stratified by class, seeded; or as it is given."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates import find_near_duplicates
from training.data.given import NAMED_PAIRS, SplitCheck, brings_split, check_split, number_parts, read_split, take_split
from training.data.groups import SPLITS, assert_disjoint, join_groups, split_groups
from training.data.labels import ImageSet
from training.data.pixels import PixelStore, write_csv
from training.errors import TrainingError, count_nouns
from training.settings.train import GIVEN, MERGE, TrainConfig

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

    pairs: NDArray[np.int64]
    """[P, 2], images of different patients that look the same."""

    check: SplitCheck | None = None
    """What is in two parts of the split, where it is the data set's own."""

    known: NDArray[np.bool_] | None = None
    """[N], true for test images that are known from another part of such a split."""

    def indices(self, split: str) -> NDArray[np.int64]:
        """Images of one of ``SPLITS``."""
        return np.flatnonzero(self.split == SPLITS.index(split))


def group_data(config: TrainConfig, images: ImageSet, store: PixelStore, digests: tuple[str, ...]) -> Data:
    """Finds out which images belong together, and says what is wrong with them; all are training images yet."""
    warnings = [*([] if images.has_patients else [LEAKAGE_WARNING]), *images.warnings]
    copies = len(digests) - len(set(digests))
    if copies:
        kept = "" if brings_split(config, images) else "; copies are kept in one split"
        warnings.append(f"{copies:,} images are copies of others, byte for byte{kept}")
    contradictions = len(set(zip(digests, images.targets.tolist(), strict=True))) - len(set(digests))
    if contradictions:
        warnings.append(f"WARNING: {contradictions:,} images have copies with another label: one label is wrong")
    groups = join_groups(images.patients, digests)
    pairs = find_near_duplicates(store.small, groups)
    del store.small  # nothing else asks for them, and training needs the room
    if config.near_duplicates == "join" and not config.split_file:
        groups = join_groups(images.patients, digests, pairs)
    print(f"{len(images.files):,} images of {', '.join(images.labels)}", *warnings, sep="\n", file=sys.stderr)
    return Data(images, store, digests, groups, np.zeros_like(groups), tuple(warnings), pairs)


def split_data(config: TrainConfig, data: Data, folder: Path, begun: Path | None = None) -> Data:
    """Splits the images by patient, or as --split says, and writes ``split.csv``.

    Args:
        config: the settings.
        data: the images.
        folder: where ``split.csv`` is written.
        begun: ``split.csv`` of the same run, which was begun before.

    Raises:
        TrainingError: when a split would lack a class, an earlier split does not fit the images, or the data set's own
            leaks and was not asked for as it is.
    """
    images = data.images
    is_own = brings_split(config, images)
    if is_own and config.split != GIVEN:
        refuse_leaks(config, data)
    path = begun or config.split_file
    if path:
        split = read_split(path, images, data.digests, may_leak=is_own)
    elif is_own:
        split = take_split(images, data.groups, config.validation, config.test, config.seed)
    else:
        split = split_groups(
            data.groups, images.targets, config.validation, config.test, config.seed, labels=images.labels
        )
    check, known = check_split(images, data.digests, data.pairs, split) if is_own else (None, None)
    return record_split(replace(data, split=split, check=check, known=known), folder)


def refuse_leaks(config: TrainConfig, data: Data) -> None:
    """Checks that nothing is in two parts of the split that the data set brings.

    Raises:
        TrainingError: something is, with an example and the ways out.
    """
    check, _ = check_split(data.images, data.digests, data.pairs, number_parts(data.images.parts))
    refused = [check.patients, check.copies, *([check.near] if config.near_duplicates == "join" else [])]
    if any(shared.count for shared in refused):
        found = [
            f"{what}, such as {' and '.join(shared.examples[0])}"
            for what, shared in check.list_findings()
            if shared.count
        ]
        raise TrainingError(
            f"the split of {data.images.root} ({check.source}) leaks, and figures on such a split mean little: in two "
            f"parts of it are {'; '.join(found)}. --split {GIVEN} takes it as it is and says so beside every figure, "
            f"--split {MERGE} makes another, by patient (where names say too much, labels.csv says who it is)"
        )


def record_split(data: Data, folder: Path) -> Data:
    """Asserts that nothing is in two splits, and writes ``split.csv``; returns the data with warnings of the split.

    A split that the data set brings, and that was asked for as it is, may have something in two: that is said.
    """
    images, check = data.images, data.check
    if check is None or not check.leaks:
        assert_disjoint(data.split, patient=images.patients, digest=data.digests)
    rows = zip(images.files, images.targets, images.patients, data.digests, data.split, strict=True)
    write_csv(
        folder / SPLIT_FILE,
        ("file", "label", "patient", "sha256", "split"),
        [(file, images.labels[label], patient, digest, SPLITS[part]) for file, label, patient, digest, part in rows],
    )
    warnings, details = [], []
    if check:
        warnings.append(check.describe())
        details = [f"  {what}: {shared.name_examples()}" for what, shared in check.list_findings() if shared.count]
    elif len(data.pairs):
        warnings.append(describe_pairs(data.pairs, images.files, data.split))
    sizes = ", ".join(f"{len(data.indices(name)):,} {name}" for name in SPLITS)
    print(sizes, *warnings, *details, sep="\n", file=sys.stderr)
    return replace(data, warnings=(*data.warnings, *warnings))


def describe_pairs(pairs: NDArray[np.int64], files: Sequence[str], split: NDArray[np.int64]) -> str:
    """Returns one line about near-duplicates of different patients; those in different splits come first."""
    apart = split[pairs[:, 0]] != split[pairs[:, 1]]
    ordered = pairs[np.argsort(~apart, kind="stable")]
    examples = "; ".join(f"{files[first]} and {files[second]}" for first, second in ordered[:NAMED_PAIRS])
    many = f"{count_nouns(len(pairs), 'pair')} of images of different patients look the same"
    if apart.any():
        return f"WARNING: {many}, {apart.sum():,} of them in different splits: {examples}"
    return f"{many} and are kept in one split: {examples}"
