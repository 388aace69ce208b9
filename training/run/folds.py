"""Cross-validation by patient: every fold is held out once, and the predictions on all of them are evaluated as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.groups import assign_folds, split_fold
from training.data.pixels import write_csv
from training.data.split import SPLIT_FILE, Data, describe_pairs, record_split
from training.progress import Part, Progress
from training.run.folder import find_partial, finish_folder
from training.run.held_out import RANDOM_FIGURES, measure_random_split, train_network
from training.run.pooling import write_pooled_results
from training.settings.train import TrainConfig


def train_folds(config: TrainConfig, data: Data, folder: Path) -> None:
    """Trains each fold into ``fold-1``, ``fold-2`` and so on, and evaluates the pooled predictions.

    A fold that is complete is kept as it is. All folds read the same decoded pixels.

    Args:
        config: the settings, the same for each fold.
        data: the images; their split is not looked at.
        folder: run folder, new or to go on with.
    """
    assert config.folds is not None
    targets, labels = data.images.targets, data.images.labels
    folds = assign_folds(data.groups, targets, config.folds, config.seed, labels=labels)
    splits = [
        split_fold(folds, index, data.groups, targets, config.validation, config.seed, labels=labels)
        for index in range(config.folds)
    ]
    write_folds(folder / SPLIT_FILE, data, folds)
    warnings = data.warnings
    if len(data.pairs):
        data = replace(data, warnings=(*data.warnings, describe_pairs(data.pairs, data.images.files, folds)))
    progress = Progress("training")
    for index, split in enumerate(splits):
        fold = replace(data, split=split, warnings=warnings)
        part = Part(progress, index, config.folds + config.random_split, f"fold {index + 1} of {config.folds}")
        out = folder / name_fold(index)
        if out.exists():
            part.skip(config.epochs * len(fold.indices("train")))
            part.print_line("finished before")
            continue
        partial = find_partial(out)
        partial.mkdir(exist_ok=True)
        train_network(config, record_split(fold, partial), partial, part, fold=index + 1)
        finish_folder(partial, out)
    random_split = None
    if config.random_split:
        last = Part(progress, config.folds, config.folds + 1)
        random_split = measure_random_split(config, data, folder, last)
    write_pooled_results(config, data, folds, folder, random_split)
    (folder / RANDOM_FIGURES).unlink(missing_ok=True)


def write_folds(path: Path, data: Data, folds: NDArray[np.int64]) -> None:
    """Writes in which fold, ``fold-1`` and so on, each image is held out."""
    images = data.images
    rows = zip(images.files, images.targets, images.patients, data.digests, folds, strict=True)
    write_csv(
        path,
        ("file", "label", "patient", "sha256", "split"),
        [
            (file, images.labels[target], patient, digest, name_fold(fold))
            for file, target, patient, digest, fold in rows
        ],
    )


def name_fold(index: int) -> str:
    """Returns the name of a fold, counted from 0, as people read it."""
    return f"fold-{index + 1}"
