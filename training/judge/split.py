"""Which images of a folder a model is judged on, and which it has learned from: by a run's split, or the data's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.labels import ImageSet
from training.data.table import read_rows, require_columns
from training.errors import TrainingError
from training.settings.evaluate import GIVEN, JudgeConfig


@dataclass(frozen=True)
class Split:
    """Which image is in which part."""

    parts: Mapping[str, str]
    """Part by file; none of an image that is in none."""

    training_digests: frozenset[str]
    """SHA-256 of the files that the model has learned from, or was chosen on."""

    training_patients: frozenset[str]
    """Whose they are, as far as that is known."""


def find_split(config: JudgeConfig, images: ImageSet) -> Split | None:
    """Returns the split that ``--split`` names; None where it names none.

    Raises:
        TrainingError: there is none.
    """
    if config.split is None:
        return None
    return take_own(images) if config.split == GIVEN else read_split(Path(config.split))


def take_own(images: ImageSet) -> Split:
    """Returns the split that the data set brings; files outside its test part are read for their digests."""
    if not images.parts:
        raise TrainingError(f"{images.root} brings no split: no folders train, val and test, no column split")
    parts = {file: part for file, part in zip(images.files, images.parts, strict=True) if part}
    learned = [index for index, part in enumerate(images.parts) if part not in ("", "test")]
    return Split(
        parts,
        frozenset(hashlib.sha256((images.root / images.files[index]).read_bytes()).hexdigest() for index in learned),
        frozenset(patient for index in learned if (patient := images.patients[index]) is not None),
    )


def read_split(path: Path) -> Split:
    """Reads the ``split.csv`` of a run."""
    header, rows = read_rows(path)
    require_columns(path, header, "file", "sha256", "split")
    learned = [row for _, row in rows if row["split"] != "test"]
    return Split(
        {row["file"]: row["split"] for _, row in rows},
        frozenset(row["sha256"] for row in learned),
        frozenset(row["patient"] for row in learned if row.get("patient")),
    )


def list_leaks(split: Split | None, digests: Iterable[str], patients: Iterable[str | None]) -> list[str]:
    """Returns warnings of judged images, given by their digests and patients, that a model may know."""
    if split is None:
        return []
    known = sum(digest in split.training_digests for digest in digests)
    shown = sum(patient in split.training_patients for patient in patients)
    warnings = [f"WARNING: {known:,} of the images were used in training or validation: leakage."] if known else []
    if shown:
        warnings.append(f"WARNING: {shown:,} of the images show patients of training or validation: leakage.")
    return warnings


def choose_images(config: JudgeConfig, images: ImageSet, split: Split | None) -> NDArray[np.int64]:
    """Returns the positions of the images to predict."""
    if split is None or config.part == "all":
        return np.arange(len(images.files))
    chosen = np.flatnonzero([split.parts.get(file) == config.part for file in images.files])
    if not len(chosen):
        raise TrainingError(f"no image of {config.data} is in the part {config.part} of {config.split}")
    return chosen.astype(np.int64)
