"""What a run folder says of a trained model: figures on held-out images, spec, report, curves, recorded answers."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from server.contract import ModelSpec
from training import report
from training.config import TrainConfig
from training.data import INPUT_FORMAT, compute_fingerprint
from training.evaluate import count_confusion, score_trivially
from training.fit import Fit, predict
from training.operating_point import choose_threshold
from training.plots import plot_curve
from training.split import Data

REFERENCE_IMAGES = 16


def write_results(
    config: TrainConfig,
    data: Data,
    fit: Fit,
    model: keras.Model,
    folder: Path,
    random_split: Mapping[str, float] | None = None,
) -> None:
    """Judges the model on the held-out test images and writes everything that is said about it.

    Args:
        config: the settings.
        data: images and split.
        fit: how the model came to be.
        model: the network with its best weights.
        folder: run folder.
        random_split: figures of the same network on a random split of slices, where it was trained.
    """
    test, labels = data.indices("test"), data.images.labels
    column = labels.index(config.positive)
    validation = data.indices("validation")
    validation_scores = predict(model, data, validation)[:, column].astype(np.float64)
    threshold = choose_threshold(config.operating_point, validation_scores, data.images.targets[validation] == column)
    probabilities = predict(model, data, test)
    scores = probabilities[:, column].astype(np.float64)
    positive = data.images.targets[test] == column
    trivial = np.array([score_trivially(data.store.read(test[i : i + 1]))[0] for i in range(len(test))])
    figures = report.measure(scores, positive, data.groups[test], trivial, threshold)
    confusion = asdict(count_confusion(scores, positive, threshold))

    spec = ModelSpec(
        name=config.name,
        version=config.version,
        labels=labels,
        positive_label=config.positive,
        threshold=threshold,
        colour=INPUT_FORMAT.colour,
        resample=INPUT_FORMAT.resample,
        fit=INPUT_FORMAT.fit,
        metrics=report.flatten_figures(figures),
        provenance={
            "data": config.data.resolve().name,
            "data_fingerprint": compute_fingerprint(data.images.files, data.digests),
            "images": str(len(data.images.files)),
            "flags": report.recorded_flags(config),
            "epochs": f"{len(fit.history)}, best {fit.best.epoch}; {fit.stopped_by}",
            "seed": str(config.seed),
            "lesion_masks": "learned by auxiliary heads, dropped" if fit.used_lesions else "none",
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "git_revision": report.find_revision(),
            "trained": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "warnings": " ".join(data.warnings),
            "notes": " ".join(config.notes),
        },
    )
    (folder / "spec.json").write_text(spec.to_json() + "\n", encoding="utf-8")
    validation = {f"validation_{name}": getattr(fit.best, f"val_{name}") for name in ("loss", "accuracy", "auc")}
    metrics = {**spec.metrics, **confusion, **validation, "best_epoch": fit.best.epoch}
    metrics |= {f"random_split_{name}": value for name, value in (random_split or {}).items()}
    report.write_json(folder / "metrics.json", metrics)
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
    page = report.render_report(spec, data.images, data.split, figures, confusion, data.warnings, config.notes)
    page += "\n".join(describe_random_split(random_split))
    (folder / "report.md").write_text(page, encoding="utf-8")
    auc = figures["auc"]
    print(f"test AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})", file=sys.stderr)


def describe_random_split(random_split: Mapping[str, float] | None) -> list[str]:
    """Returns the part of a report that shows what a random split of slices would have made of the same network."""
    if random_split is None:
        return []
    return [
        "",
        "## Leakage: the same network on a random split of slices",
        "",
        "Slices of one person are in training and in test here. These figures are NOT what the model does on new "
        "people; how much better they look is what leaks.",
        "",
        "| | value |",
        "|---|---|",
        *[f"| {name} | {value:.3f} |" for name, value in random_split.items()],
        "",
    ]


def choose_reference(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns up to ``REFERENCE_IMAGES`` positions of test images, the first of each class."""
    share = REFERENCE_IMAGES // (int(targets.max()) + 1)
    return np.sort(np.concatenate([np.flatnonzero(targets == label)[:share] for label in np.unique(targets)]))
