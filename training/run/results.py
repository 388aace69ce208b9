"""What a run folder says of a trained model: figures on held-out people, spec, report, plots, recorded answers."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from server.models.contract import ModelSpec
from training.data.format import make_format
from training.data.pixels import compute_fingerprint
from training.data.split import Data
from training.evaluation.calibration import Calibration, calibrate
from training.evaluation.figures import ClassAnswers, Evaluation, Floats, OwnSplit, Predictions
from training.evaluation.measure import Decision, choose_decision, evaluate
from training.evaluation.nearest import Nearest, evaluate_nearest, shrink_images
from training.evaluation.positive import find_indices, score_positive
from training.evaluation.subgroups import measure_others, measure_subgroups
from training.evaluation.summary import SUMMARY_KEY, to_document
from training.fit.network import Fit, predict
from training.report import records as report
from training.report.card import write_card
from training.report.classes import name_figures
from training.report.galleries import ReadImages
from training.report.plots import plot_curve, write_plots
from training.report.run import write_report
from training.report.tables import SHIFT
from training.settings.train import TrainConfig

REFERENCE_IMAGES = 16
PREVALENCES = (0.02, 0.05, 0.15, 0.38)
"""At which a report restates PPV and NPV: from an unselected stream of scans to the share of stroke in the public sets
that networks are trained on."""


@dataclass(frozen=True)
class Remarks:
    """What a command that does more than train has to say of a run."""

    spec: ModelSpec
    """With what it adds."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    """More keys of ``metrics.json``."""

    sections: tuple[tuple[str, str], ...] = ()
    """Of the report, below the headline: heading and Markdown."""


def calibrate_network(config: TrainConfig, data: Data, model: keras.Model) -> Calibration:
    """Fits a scaling on the validation images and puts it into the network; see ``calibration.calibrate``."""
    validation = data.indices("validation")
    return calibrate(model, predict(model, data, validation), data.images.targets[validation])


def write_results(
    config: TrainConfig,
    data: Data,
    fit: Fit,
    model: keras.Model,
    calibration: Calibration,
    folder: Path,
    random_split: Mapping[str, float] | None = None,
    remark: Callable[[ModelSpec, Predictions], Remarks] = lambda spec, predictions: Remarks(spec),
) -> tuple[Predictions, Evaluation]:
    """Evaluates the model on the held-out test images and writes everything that is said about it.

    Args:
        config: the settings of the run.
        data: images and split.
        fit: how the fit went.
        model: the calibrated network.
        calibration: what it answers on the validation images, on which everything is chosen.
        folder: the run folder.
        random_split: figures of the same network on a random split of slices, where it was trained.
        remark: what else is to be said, from the spec and the predictions on the test images.

    Returns:
        The predictions on the test images, and their figures.
    """
    test, labels = data.indices("test"), data.images.labels
    decision, scaling = decide(config, data, calibration), calibration.scaling
    probabilities = predict(model, data, test)
    predictions, evaluation = evaluate_test(config, data, decision, probabilities)
    evaluation = replace(evaluation, baselines=replace(evaluation.baselines, random_split=random_split))
    remarks = remark(build_spec(config, data, fit, calibration, decision, evaluation), predictions)
    spec = remarks.spec
    (folder / "spec.json").write_text(spec.to_json() + "\n", encoding="utf-8")
    report.write_json(
        folder / "metrics.json",
        {
            SUMMARY_KEY: to_document(evaluation),
            "calibration": {"temperature": scaling.temperature, "shift": scaling.shift.tolist()},
            **remarks.metrics,
            "best_epoch": {
                name.replace("val_", "validation_"): value
                for name, value in asdict(fit.best).items()
                if name not in ("seconds", "images_per_second")
            },
        },
    )
    chosen = choose_reference(data.images.targets[test])
    report.write_reference(
        folder / "reference.json",
        labels,
        [data.images.files[index] for index in test[chosen]],
        [data.digests[index] for index in test[chosen]],
        probabilities[chosen],
    )
    for quantity in ("accuracy", "loss"):
        plot_curve(folder / f"{quantity}.png", fit.history, quantity, fit.best.epoch)
    sides = name_sides(labels, config.positive)
    write_plots(folder, evaluation, predictions, lambda positions: read_pixels(data)(test[positions]), sides)
    write_report(folder, spec, evaluation, warnings=data.warnings, notes=config.notes, more=remarks.sections)
    write_card(folder)
    auc = evaluation.slices.figures["auc"]
    leak = "; the split leaks, see above" if data.check and data.check.leaks else ""
    print(f"test AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}){leak}", file=sys.stderr)
    if evaluation.classes:
        print(name_figures(evaluation.classes), file=sys.stderr)
    return predictions, evaluation


def decide(config: TrainConfig, data: Data, calibration: Calibration) -> Decision:
    """Chooses how slices and people are decided on, from the calibrated answers on validation images."""
    validation = data.indices("validation")
    positive = find_indices(data.images.labels, config.positive)
    return choose_decision(
        config.operating_point,
        score_positive(calibration.probabilities, positive),
        np.isin(data.images.targets[validation], positive),
        find_studies(data)[validation] if data.images.has_patients else None,
    )


def find_studies(data: Data) -> NDArray[np.int64]:
    """Returns numbers [N] that tell studies apart; a person's images are one where their studies are not known."""
    studies = data.images.studies or (None,) * len(data.groups)
    keys = list(zip(data.groups.tolist(), studies, strict=True))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def evaluate_test(
    config: TrainConfig, data: Data, decision: Decision, probabilities: NDArray[np.float32]
) -> tuple[Predictions, Evaluation]:
    """Evaluates the predictions ``probabilities`` [T, C] on the test images, beside what needs no training."""
    train, test = data.indices("train"), data.indices("test")
    positive = find_indices(data.images.labels, config.positive)
    is_positive = np.isin(data.images.targets, positive)
    nearest, trivial = compare_nearest(config, data, is_positive.astype(np.int64))
    predictions = Predictions(
        files=tuple(data.images.files[index] for index in test),
        scores=score_positive(probabilities, positive),
        positive=is_positive[test],
        groups=np.unique(data.groups[test], return_inverse=True)[1].astype(np.int64),
        trivial=trivial,
        has_patients=data.images.has_patients,
        classes=tell_classes(config, data, test, probabilities),
    )
    evaluation = evaluate(
        predictions,
        decision,
        model=f"{config.name} {config.version}",
        data=f"{config.data.resolve().name}, held-out test images",
        prevalences=PREVALENCES,
        majority_positive=bool(is_positive[train].mean() > 0.5),
        nearest=nearest,
    )
    groups = {name: [values[index] for index in test] for name, values in data.images.subgroups.items()}
    own_split = None
    if data.check is not None and data.known is not None:
        own_split = OwnSplit(data.check, measure_others(predictions, decision.threshold, data.known[test]))
    return predictions, replace(
        evaluation,
        subgroups=measure_subgroups(predictions, decision.threshold, evaluation.patients, groups),
        own_split=own_split,
    )


def compare_nearest(config: TrainConfig, data: Data, targets: NDArray[np.int64]) -> tuple[Nearest, Floats]:
    """Returns the nearest training image's answers on the test images, and the trivial scores of these.

    The tiny images are let go when this ends: they would be most of what grows with the data set.
    """
    train, test = data.indices("train"), data.indices("test")
    used = np.concatenate([train, test])
    small, trivial = shrink_images(read_pixels(data), used)
    learned, asked = np.arange(len(train)), np.arange(len(train), len(used))
    return evaluate_nearest(small, targets[used], learned, asked, seed=config.seed), trivial[asked]


def tell_classes(
    config: TrainConfig, data: Data, indices: NDArray[np.int64], probabilities: NDArray[np.floating]
) -> ClassAnswers | None:
    """Returns the answers ``probabilities`` [n, C] on some images by class, where there are more than two."""
    labels = data.images.labels
    if len(labels) == 2:
        return None
    positive = find_indices(labels, config.positive)
    return ClassAnswers(labels, positive, probabilities.astype(np.float64), data.images.targets[indices])


def name_sides(labels: Sequence[str], positive: Sequence[str]) -> tuple[str, str]:
    """Returns what the negative and the positive labels are called together: by their names where each is one."""
    negative = [label for label in labels if label not in positive]
    return negative[0] if len(negative) == 1 else "negative", positive[0] if len(positive) == 1 else "positive"


def read_pixels(data: Data) -> ReadImages:
    """Returns what reads the first planes of images of the store by position: uint8 [n, H, W]."""
    return lambda indices: data.store.read(indices)[..., 0]


def build_spec(
    config: TrainConfig, data: Data, fit: Fit, calibration: Calibration, decision: Decision, evaluation: Evaluation
) -> ModelSpec:
    """Returns the contract of the model, with the figures by name and where it all comes from."""
    levels = {"test": evaluation.slices}
    input_format = make_format(config.windows)
    metrics = {"test_trivial_auc": evaluation.baselines.trivial_auc.value}
    if evaluation.classes:
        metrics |= report.flatten_classes("test", evaluation.classes)
    if evaluation.patient_classes:
        metrics |= report.flatten_classes("test_patient", evaluation.patient_classes)
    if evaluation.patients is not None:
        levels["test_patient"] = evaluation.patients
    return ModelSpec(
        name=config.name,
        version=config.version,
        labels=data.images.labels,
        positive_labels=config.positive,
        threshold=decision.threshold,
        colour=input_format.colour,
        resample=input_format.resample,
        fit=input_format.fit,
        windows=input_format.windows,
        study_top_k=decision.top_k,
        study_threshold=decision.patient_threshold,
        temperature=calibration.scaling.temperature,
        metrics={**report.flatten_figures(levels), **metrics},
        provenance={
            "data": config.data.resolve().name,
            "data_fingerprint": compute_fingerprint(data.images.files, data.digests),
            "images": str(len(data.images.files)),
            "flags": report.recorded_flags(config),
            "epochs": f"{len(fit.history)}, best {fit.best.epoch}; {fit.stopped_by}",
            "seed": str(config.seed),
            "operating_point": decision.rule,
            SHIFT: calibration.scaling.describe_shift(data.images.labels),
            "lesion_masks": "learned by auxiliary heads, dropped" if fit.used_lesions else "none",
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "git_revision": report.find_revision(),
            "trained": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "warnings": " ".join(data.warnings),
            "notes": " ".join(config.notes),
        },
    )


def choose_reference(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns about ``REFERENCE_IMAGES`` positions of test images, the first of each class."""
    share = max(1, REFERENCE_IMAGES // (int(targets.max()) + 1))
    return np.sort(np.concatenate([np.flatnonzero(targets == label)[:share] for label in np.unique(targets)]))
