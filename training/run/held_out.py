"""One network, trained, and evaluated on people it has never seen; and what it would seem to be on a random split."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from training.data.groups import split_groups
from training.data.split import Data
from training.evaluation.decision import Threshold
from training.evaluation.figures import Evaluation, Predictions
from training.evaluation.measure import measure_level
from training.evaluation.operating_point import choose_threshold
from training.evaluation.positive import find_indices, score_positive
from training.fit.checkpoint import remove_checkpoints
from training.fit.models import MODELS
from training.fit.network import Fit, fit_network, predict
from training.fit.transfer import remove_features
from training.fit.weights import check_weights_past
from training.progress import Part
from training.report.answers import (
    PATIENTS,
    PREDICTIONS,
    AnswerSheet,
    complete_probabilities,
    write_patients,
    write_predictions,
)
from training.report.card import copy_facts
from training.run.results import calibrate_network, write_results
from training.settings.train import TrainConfig

MODEL_FILES = ("brain_stroke_model.h5", "brain_stroke_model.keras")
INTERRUPTED = "interrupted"
RANDOM_SPLIT = "random-split"
RANDOM_FIGURES = "random-split.json"
"""Figures of the random split until the run is finished, then they are in the results."""


def train_network(config: TrainConfig, data: Data, folder: Path, part: Part, *, fold: int | None = None) -> None:
    """Trains a network on a split and writes all that is said about it, its weights, and its answers on test images.

    Args:
        config: the settings; where they ask for a random split and this is no fold, that is trained here as well.
        data: images and split.
        folder: run folder, new or to go on with.
        part: where progress is shown.
        fold: number of the fold from 1, None where the run has no folds.
    """
    copy_facts(data.images.root, folder)
    warnings = check_weights_past(config, data)
    for warning in warnings:
        print(warning, file=sys.stderr)
    data = replace(data, warnings=(*data.warnings, *warnings))
    fit = start_fit(config, data, folder, part)
    random_split = None
    if config.random_split and fold is None and fit.stopped_by != INTERRUPTED:
        random_split = measure_random_split(config, data, folder, replace(part, index=part.index + 1))
    model = build_fitted(config, data, fit)
    calibration = calibrate_network(config, data, model)
    predictions, evaluation = write_results(config, data, fit, model, calibration, folder, random_split)
    write_answers(config, data, predictions, evaluation, folder, fold=fold)
    if not config.no_weights:
        for name in MODEL_FILES:
            model.save(folder / name)
    remove_checkpoints(folder)
    remove_features(folder)
    (folder / RANDOM_FIGURES).unlink(missing_ok=True)


def start_fit(config: TrainConfig, data: Data, folder: Path, part: Part) -> Fit:
    """Fits a network from the seed, whatever was trained before in this process."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(config.seed)
    return fit_network(config, data, folder, part)


def build_fitted(config: TrainConfig, data: Data, fit: Fit) -> keras.Model:
    """Returns the network with its best weights; plain float32, whatever arithmetic the training used."""
    model = MODELS[config.model]("float32", classes=len(data.images.labels))
    model.set_weights(fit.weights)
    return model


def measure_random_split(config: TrainConfig, data: Data, folder: Path, part: Part) -> dict[str, float] | None:
    """Trains the same network on a random split of slices, as if they were independent, and keeps its figures only.

    Slices of one person land in training and in test: the figures are too good by what leaks.

    Returns:
        Figures of its test slices by name, see ``evaluation.Level``; None where Ctrl-C ended it.
    """
    figures: dict[str, float]
    if (folder / RANDOM_FIGURES).exists():
        figures = json.loads((folder / RANDOM_FIGURES).read_text(encoding="utf-8"))
        return figures
    targets = data.images.targets
    split = split_groups(np.arange(len(targets)), targets, config.validation, config.test, config.seed)
    shuffled, own = replace(data, split=split), folder / RANDOM_SPLIT
    own.mkdir(exist_ok=True)
    try:
        fit = start_fit(config, shuffled, own, replace(part, name="random split of slices, for comparison"))
        is_complete = fit.stopped_by != INTERRUPTED
    except KeyboardInterrupt:
        if config.folds:
            raise
        is_complete = False
    if not is_complete:
        shutil.rmtree(own)
        print("the random split is left out", file=sys.stderr)
        return None
    model, positive = build_fitted(config, data, fit), find_indices(data.images.labels, config.positive)
    calibration = calibrate_network(config, shuffled, model)
    validation, test = shuffled.indices("validation"), shuffled.indices("test")
    is_positive = np.isin(targets, positive)
    threshold = choose_threshold(
        config.operating_point, score_positive(calibration.probabilities, positive), is_positive[validation]
    )
    scores = score_positive(predict(model, data, test), positive)
    figures, _ = measure_level(scores, is_positive[test], threshold)
    (folder / RANDOM_FIGURES).write_text(json.dumps(figures), encoding="utf-8")
    shutil.rmtree(own)
    return figures


def write_answers(
    config: TrainConfig,
    data: Data,
    predictions: Predictions,
    evaluation: Evaluation,
    folder: Path,
    *,
    fold: int | None = None,
) -> None:
    """Writes every answer on the test images, and those about people where they are known."""
    test = data.indices("test")
    folds = ["" if fold is None else str(fold)] * len(test)
    sheet = make_sheet(config, data, test, predictions, evaluation.slices.threshold, folds)
    write_predictions(folder / PREDICTIONS, sheet)
    if (patients := evaluation.patients) is not None:
        count = patients.count
        write_patients(folder / PATIENTS, sheet, np.full(count, patients.top_k), np.full(count, patients.threshold))


def make_sheet(
    config: TrainConfig,
    data: Data,
    indices: NDArray[np.int64],
    predictions: Predictions,
    threshold: Threshold,
    folds: Sequence[str],
) -> AnswerSheet:
    """Returns what was answered on held-out images with all that is known of them.

    Args:
        config: the settings.
        data: images of the run.
        indices: [N], which images.
        predictions: of the same images.
        threshold: of the decision on slices; one, or one for each image.
        folds: [N], number of the fold in which each was held out, from 1; empty text of a run without folds.
    """
    images, classes = data.images, predictions.classes
    positive = find_indices(images.labels, config.positive)
    places = indices.tolist()
    return AnswerSheet(
        predictions=predictions,
        threshold=threshold,
        labels=images.labels,
        positive=positive,
        probabilities=classes.probabilities
        if classes
        else complete_probabilities(predictions.scores, images.labels, positive),
        actual=[images.labels[images.targets[index]] for index in places],
        patients=[images.patients[index] for index in places],
        parts=["test"] * len(places),
        folds=folds,
        subgroups={name: [values[index] for index in places] for name, values in images.subgroups.items()},
    )
