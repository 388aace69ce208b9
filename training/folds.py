"""Cross-validation by patient: every fold is held out once, and the answers on all of them are judged as one."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training import report
from training.config import TrainConfig
from training.data import write_csv
from training.evaluate import count_confusion, score_trivially
from training.held_out import PREDICTIONS, RANDOM_FIGURES, measure_random_split, train_network, write_predictions
from training.progress import Part, Progress
from training.results import describe_random_split
from training.run_folder import METRICS, find_partial, finish_folder
from training.split import Data, assign_folds, record_split, split_fold

FOLDS = "split.csv"


def train_folds(config: TrainConfig, data: Data, folder: Path) -> None:
    """Trains each fold into ``fold-1``, ``fold-2`` and so on, and judges the pooled answers.

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
    write_folds(folder / FOLDS, data, folds)
    progress = Progress("training")
    for index, split in enumerate(splits):
        fold = replace(data, split=split)
        part = Part(progress, index, config.folds + config.random_split, f"fold {index + 1} of {config.folds}")
        out = folder / f"fold-{index + 1}"
        if out.exists():
            part.skip(config.epochs * len(fold.indices("train")))
            part.print_line("finished before")
            continue
        partial = find_partial(out)
        partial.mkdir(exist_ok=True)
        record_split(fold, partial)
        train_network(config, fold, partial, part, fold=index + 1)
        finish_folder(partial, out)
    random_split = None
    if config.random_split:
        last = Part(progress, config.folds, config.folds + 1)
        random_split = measure_random_split(config, data, folder, last)
    pool_folds(config, data, folds, folder, random_split)
    (folder / RANDOM_FIGURES).unlink(missing_ok=True)


def write_folds(path: Path, data: Data, folds: NDArray[np.int64]) -> None:
    """Writes in which fold, from 1, each image is held out."""
    files, labels, targets = data.images.files, data.images.labels, data.images.targets
    rows = zip(files, targets, data.images.patients, data.digests, folds, strict=True)
    write_csv(
        path,
        ("file", "label", "patient", "sha256", "fold"),
        [(file, labels[target], patient, digest, fold + 1) for file, target, patient, digest, fold in rows],
    )


def pool_folds(
    config: TrainConfig,
    data: Data,
    folds: NDArray[np.int64],
    folder: Path,
    random_split: dict[str, float] | None,
) -> None:
    """Writes the answers on all held-out images, and the figures over all of them.

    Each answer is decided by the threshold of its own fold, which was chosen without it.
    """
    labels = data.images.labels
    position = {file: index for index, file in enumerate(data.images.files)}
    scores, thresholds = np.empty(len(folds)), np.empty(len(folds))
    by_fold = []
    for index in range(folds.max() + 1):
        own = folder / f"fold-{index + 1}"
        by_fold.append(json.loads((own / METRICS).read_text(encoding="utf-8")))
        thresholds[folds == index] = json.loads((own / "spec.json").read_text(encoding="utf-8"))["threshold"]
        with (own / PREDICTIONS).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                scores[position[row["file"]]] = float(row["probability"])
    every = np.arange(len(folds))
    write_predictions(folder / PREDICTIONS, data, every, scores, folds + 1)

    positive = data.images.targets == labels.index(config.positive)
    trivial = np.concatenate([score_trivially(data.store.read(every[i : i + 1])) for i in every])
    figures = report.measure(scores, positive, data.groups, trivial, thresholds)
    confusion = asdict(count_confusion(scores, positive, thresholds))
    metrics = {**report.flatten_figures(figures), **confusion, "folds": len(by_fold)}
    metrics |= {f"fold_{index}_test_auc": fold["test_auc"] for index, fold in enumerate(by_fold, 1)}
    metrics |= {f"random_split_{name}": value for name, value in (random_split or {}).items()}
    lines = [
        f"# {config.name} {config.version}: cross-validation",
        "",
        *[f"**{warning}**\n" for warning in data.warnings],
        *[f"{note}\n" for note in config.notes],
        f"{len(folds):,} images; each was judged once, by a network trained without its person ({len(by_fold)} folds).",
        f"Positive: {config.positive}, each fold with its own threshold. Intervals: 95 %, bootstrap over people.",
        "",
        "| all folds | value | 95 % interval |",
        "|---|---|---|",
        *[
            f"| {name.replace('_', ' ')} | {figure.value:.3f} | {figure.low:.3f} to {figure.high:.3f} |"
            for name, figure in figures.items()
        ],
        "",
        "| fold | AUC | sensitivity | specificity | threshold |",
        "|---|---|---|---|---|",
        *[
            f"| {index} | {fold['test_auc']:.3f} | {fold['test_sensitivity']:.3f} | {fold['test_specificity']:.3f} | "
            f"{thresholds[folds == index - 1][0]:.3f} |"
            for index, fold in enumerate(by_fold, 1)
        ],
        *describe_random_split(random_split),
        "",
        f"Flags: `{report.recorded_flags(config)}`",
    ]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    report.write_json(folder / METRICS, metrics)
    auc = figures["auc"]
    print(f"AUC over all folds {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})", file=sys.stderr)
