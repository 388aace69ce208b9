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
from training.evaluation.figures import ClassFigures, Evaluation, PatientLevel, Predictions
from training.evaluation.measure import Decision, evaluate, measure_people
from training.evaluation.nearest import Nearest, evaluate_nearest, shrink_images
from training.evaluation.patient_classes import answer_people, evaluate_people_by_class
from training.evaluation.patient_level import find_positive_patients, score_patients
from training.evaluation.positive import find_indices
from training.evaluation.subgroups import measure_subgroups
from training.evaluation.summary import SUMMARY_KEY, Summary, from_document, to_document
from training.report import records as report
from training.report.answers import PATIENTS, PREDICTIONS, name_columns, write_patients, write_predictions
from training.report.classes import name_figures
from training.report.plots import write_plots
from training.report.run import write_folds_report
from training.run.folder import METRICS
from training.run.held_out import make_sheet
from training.run.results import PREVALENCES, name_sides, read_pixels, tell_classes
from training.settings.train import TrainConfig


@dataclass(frozen=True)
class Fold:
    """What a finished fold has recorded."""

    spec: ModelSpec
    summary: Summary
    scores: Mapping[str, float]
    """Probability of the positive labels by file, of its test images."""

    probabilities: Mapping[str, Sequence[float]]
    """Probability of each label by file."""


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
    everything = np.arange(len(files))
    pairs = list(zip(files, folds, strict=True))
    scores = np.array([finished[fold].scores[file] for file, fold in pairs])
    probabilities = np.array([finished[fold].probabilities[file] for file, fold in pairs])
    read = read_pixels(data)
    small, trivial = shrink_images(read, everything)
    predictions = Predictions(
        files,
        scores,
        np.isin(data.images.targets, find_indices(labels, config.positive)),
        data.groups,
        trivial,
        data.images.has_patients,
        tell_classes(config, data, everything, probabilities),
    )
    pooled = evaluate_pooled(config, data, folds, finished, predictions, small)
    pooled = replace(pooled, baselines=replace(pooled.baselines, random_split=random_split))
    write_plots(folder, pooled, predictions, read, name_sides(labels, config.positive))
    write_answers(config, data, folds, finished, predictions, folder)
    summaries = [fold.summary for fold in finished]
    levels = {"test": pooled.slices} | ({"test_patient": pooled.patients} if pooled.patients else {})
    spec = replace(
        finished[0].spec,
        threshold=pooled.slices.threshold,
        temperature=1.0,
        metrics={
            **report.flatten_figures(levels),
            **(report.flatten_classes("test", pooled.classes) if pooled.classes else {}),
            **(report.flatten_classes("test_patient", pooled.patient_classes) if pooled.patient_classes else {}),
        },
    )
    write_folds_report(folder, spec, pooled, summaries, warnings=data.warnings, notes=config.notes)
    documents = [json.loads((folder / f"fold-{n}" / METRICS).read_text("utf-8")) for n in range(1, len(finished) + 1)]
    report.write_json(folder / METRICS, {SUMMARY_KEY: to_document(pooled), "folds": documents})
    auc = pooled.slices.figures["auc"]
    print(f"AUC over all folds {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})", file=sys.stderr)
    if pooled.classes:
        print(name_figures(pooled.classes), file=sys.stderr)


def read_fold(folder: Path) -> Fold:
    """Reads what a finished fold has recorded."""
    metrics = json.loads((folder / METRICS).read_text("utf-8"))
    spec = ModelSpec.from_json((folder / "spec.json").read_text("utf-8"))
    with (folder / PREDICTIONS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = name_columns(spec.labels)
    return Fold(
        spec,
        from_document(metrics[SUMMARY_KEY]),
        {row["file"]: float(row["probability"]) for row in rows},
        {row["file"]: [float(row[column]) for column in columns] for row in rows},
    )


def evaluate_pooled(
    config: TrainConfig,
    data: Data,
    folds: NDArray[np.int64],
    finished: Sequence[Fold],
    predictions: Predictions,
    small: NDArray[np.uint16],
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
        nearest=evaluate_nearest_of_folds(folds, predictions.positive.astype(np.int64), small, config.seed),
    )
    return replace(
        evaluation,
        slices=replace(evaluation.slices, threshold=float(np.median(thresholds))),
        patients=evaluate_people(folds, finished, predictions),
        patient_classes=evaluate_classes_of_people(folds, finished, predictions),
        subgroups=measure_subgroups(predictions, thresholds[folds], None, data.images.subgroups),
    )


def write_answers(
    config: TrainConfig,
    data: Data,
    folds: NDArray[np.int64],
    finished: Sequence[Fold],
    predictions: Predictions,
    folder: Path,
) -> None:
    """Writes every answer, decided by the thresholds and rules of the fold in which its person was held out."""
    thresholds = np.array([fold.spec.threshold for fold in finished])
    numbers = [str(fold + 1) for fold in folds.tolist()]
    sheet = make_sheet(config, data, np.arange(len(folds)), predictions, thresholds[folds], numbers)
    write_predictions(folder / PREDICTIONS, sheet)
    rules = [fold.summary.patients for fold in finished]
    if None not in rules:
        fold_of_person = folds[np.unique(predictions.groups, return_index=True)[1]]
        top_k, threshold = (
            np.array([getattr(rules[fold], name) for fold in fold_of_person]) for name in ("top_k", "threshold")
        )
        write_patients(folder / PATIENTS, sheet, top_k, threshold)


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


def evaluate_classes_of_people(
    folds: NDArray[np.int64], finished: Sequence[Fold], predictions: Predictions
) -> ClassFigures | None:
    """Measures the same by class; None where there are two, or people are not known."""
    classes, probabilities, targets, thresholds = predictions.classes, [], [], []
    if classes is None:
        return None
    for index, fold in enumerate(finished):
        if (patients := fold.summary.patients) is None:
            return None
        mine = folds == index
        groups = np.unique(predictions.groups[mine], return_inverse=True)[1]
        answers = answer_people(classes.choose(mine), groups, patients.top_k)
        probabilities.append(answers.probabilities)
        targets.append(answers.targets)
        thresholds.append(np.full(len(answers.targets), patients.threshold))
    people = replace(classes, probabilities=np.concatenate(probabilities), targets=np.concatenate(targets))
    return evaluate_people_by_class(people, np.concatenate(thresholds))


def evaluate_nearest_of_folds(
    folds: NDArray[np.int64], targets: NDArray[np.int64], small: NDArray[np.uint16], seed: int
) -> Nearest:
    """Evaluates the nearest neighbour fold by fold, as the networks were: among the images of all other folds."""
    is_right, random_right = np.zeros(len(folds), bool), 0.0
    for index in range(int(folds.max()) + 1):
        train, test = folds != index, folds == index
        nearest = evaluate_nearest(small, targets, np.flatnonzero(train), np.flatnonzero(test), seed=seed)
        is_right[test] = nearest.is_right
        random_right += nearest.random_accuracy * test.sum()
    return Nearest(is_right, float(random_right / len(folds)))
