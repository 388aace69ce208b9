"""The predictions of all folds of a cross-validation, evaluated as one: each by a network that never saw the person."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.models.contract import ModelSpec
from training.data.split import Data
from training.evaluation.figures import Evaluation, PatientLevel, Predictions
from training.evaluation.measure import Decision, evaluate, measure_people
from training.evaluation.nearest import Nearest, evaluate_nearest, shrink_images
from training.evaluation.patient_level import find_positive_patients, score_patients
from training.evaluation.summary import SUMMARY_KEY, Summary, from_document, to_document
from training.report import records as report
from training.report.plots import write_plots
from training.report.run import write_folds_report
from training.run.folder import METRICS
from training.run.held_out import PREDICTIONS, write_predictions
from training.run.results import PREVALENCES, read_pixels
from training.settings.train import TrainConfig


@dataclass(frozen=True)
class Fold:
    """What a finished fold has recorded."""

    spec: ModelSpec
    summary: Summary
    scores: Mapping[str, float]
    """Probability of the positive label by file, of its test images."""


def write_pooled_results(
    config: TrainConfig,
    data: Data,
    folds: NDArray[np.int64],
    folder: Path,
    random_split: Mapping[str, float] | None,
) -> None:
    """Writes the answers on all images, and figures, plots and report over all of them.

    Args:
        config: the settings of the run.
        data: the images; their split is not looked at.
        folds: [N], fold of each image, from 0.
        folder: run folder, with the finished folds in it.
        random_split: figures of the same network on a random split of slices, where it was trained.
    """
    finished = [read_fold(folder / f"fold-{index + 1}") for index in range(int(folds.max()) + 1)]
    files, labels = data.images.files, data.images.labels
    scores = np.array([finished[fold].scores[file] for file, fold in zip(files, folds, strict=True)])
    write_predictions(folder / PREDICTIONS, data, np.arange(len(files)), scores, folds + 1)

    read = read_pixels(data)
    small, trivial = shrink_images(read, np.arange(len(files)))
    positive = data.images.targets == labels.index(config.positive)
    predictions = Predictions(files, scores, positive, data.groups, trivial, data.images.has_patients)
    pooled = evaluate_pooled(config, data, folds, finished, predictions, small)
    pooled = replace(pooled, baselines=replace(pooled.baselines, random_split=random_split))
    write_plots(
        folder, pooled, predictions, read, (next(name for name in labels if name != config.positive), config.positive)
    )
    summaries = [fold.summary for fold in finished]
    levels = {"test": pooled.slices} | ({"test_patient": pooled.patients} if pooled.patients else {})
    spec = replace(
        finished[0].spec,
        threshold=pooled.slices.threshold,
        temperature=1.0,
        metrics=report.flatten_figures(levels),
    )
    write_folds_report(folder, spec, pooled, summaries, warnings=data.warnings, notes=config.notes)
    documents = [json.loads((folder / f"fold-{n}" / METRICS).read_text("utf-8")) for n in range(1, len(finished) + 1)]
    report.write_json(folder / METRICS, {SUMMARY_KEY: to_document(pooled), "folds": documents})
    auc = pooled.slices.figures["auc"]
    print(f"AUC over all folds {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})", file=sys.stderr)


def read_fold(folder: Path) -> Fold:
    """Reads what a finished fold has recorded."""
    with (folder / PREDICTIONS).open(newline="", encoding="utf-8") as file:
        scores = {row["file"]: float(row["probability"]) for row in csv.DictReader(file)}
    metrics = json.loads((folder / METRICS).read_text("utf-8"))
    spec = ModelSpec.from_json((folder / "spec.json").read_text("utf-8"))
    return Fold(spec, from_document(metrics[SUMMARY_KEY]), scores)


def evaluate_pooled(
    config: TrainConfig,
    data: Data,
    folds: NDArray[np.int64],
    finished: Sequence[Fold],
    predictions: Predictions,
    small: NDArray[np.float32],
) -> Evaluation:
    """Measures the pooled answers; each is decided by the threshold of its own fold, which was chosen without it.

    The threshold that is stated is the median of the folds'.
    """
    thresholds = np.array([fold.spec.threshold for fold in finished])
    decision = Decision(
        thresholds[folds],  # type: ignore[arg-type] # one per image is compared as one for all would be
        f"{config.operating_point}, chosen in each fold on its validation images; stated is the median",
        top_k=1,
        patient_threshold=float(np.median(thresholds)),
    )
    evaluation = evaluate(
        predictions,
        decision,
        model=f"{config.name} {config.version}, {len(finished)} folds",
        data=f"{config.data.resolve().name}, each image by the network that has not seen its person",
        prevalences=PREVALENCES,
        nearest=evaluate_nearest_of_folds(folds, data.images.targets, small, config.seed),
    )
    return replace(
        evaluation,
        slices=replace(evaluation.slices, threshold=float(np.median(thresholds))),
        patients=evaluate_people(folds, finished, predictions),
    )


def evaluate_people(
    folds: NDArray[np.int64], finished: Sequence[Fold], predictions: Predictions
) -> PatientLevel | None:
    """Measures the answers about people, each by the rule of its own fold; None where people are not known."""
    scores, positive, thresholds, top_k = [], [], [], []
    for index, fold in enumerate(finished):
        patients = fold.summary.patients
        if patients is None:
            return None
        mine = folds == index
        groups = np.unique(predictions.groups[mine], return_inverse=True)[1]
        scores.append(score_patients(predictions.scores[mine], groups, patients.top_k))
        positive.append(find_positive_patients(predictions.positive[mine], groups))
        thresholds.append(np.full(len(scores[-1]), patients.threshold))
        top_k.append(patients.top_k)
    return measure_people(
        np.concatenate(scores), np.concatenate(positive), np.concatenate(thresholds), int(np.median(top_k))
    )


def evaluate_nearest_of_folds(
    folds: NDArray[np.int64], targets: NDArray[np.int64], small: NDArray[np.float32], seed: int
) -> Nearest:
    """Evaluates the nearest neighbour fold by fold, as the networks were: among the images of all other folds."""
    is_right, random_right = np.zeros(len(folds), bool), 0.0
    for index in range(int(folds.max()) + 1):
        train, test = folds != index, folds == index
        nearest = evaluate_nearest(small[train], targets[train], small[test], targets[test], seed=seed)
        is_right[test] = nearest.is_right
        random_right += nearest.random_accuracy * test.sum()
    return Nearest(is_right, float(random_right / len(folds)))
