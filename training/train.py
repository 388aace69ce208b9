"""One training run, from a folder of images to a run folder; ``train`` reads top to bottom.

The run folder appears under its name when it is complete. Until then it is ``<name>.partial``, with the best weights
and the history so far: that is what a power cut leaves.
"""

from __future__ import annotations

import datetime
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from server.contract import ModelSpec
from training import report
from training.config import TrainConfig
from training.data import INPUT_FORMAT, compute_fingerprint, decode_images, list_images
from training.errors import TrainingError
from training.evaluate import count_confusion, score_trivially
from training.fit import Fit, fit_network, predict
from training.models import MODELS
from training.monitor import CHECKPOINT
from training.plots import plot_curve
from training.progress import Progress
from training.split import Data, split_data

MODEL_FILES = ("brain_stroke_model.h5", "brain_stroke_model.keras")
REFERENCE_IMAGES = 16


def train(config: TrainConfig) -> Path:
    """Trains a network and writes its run folder.

    Returns:
        The run folder.

    Raises:
        TrainingError: when the data, a flag or the run folder is not usable; nothing is left behind then.
        KeyboardInterrupt: when it comes before the first epoch has ended; later, the best weights so far are kept.
    """
    keras.utils.set_random_seed(config.seed)
    images = list_images(config.data)
    if config.positive not in images.labels:
        raise TrainingError(f"--positive {config.positive} is not among the class folders: {', '.join(images.labels)}")
    with make_run_folder(config.out) as folder:
        store, digests = decode_images(images, folder, Progress("decoding"))
        with store:
            data = split_data(config, images, store, digests, folder)
            fit = fit_network(config, data, folder)
            # The model is plain float32, whatever arithmetic the training used.
            model = MODELS[config.model]("float32")
            model.set_weights(fit.weights)
            for name in MODEL_FILES:
                model.save(folder / name)
            write_results(config, data, fit, model, folder)
        (folder / CHECKPOINT).unlink()
    return config.out


@contextmanager
def make_run_folder(out: Path) -> Iterator[Path]:
    """Yields ``<out>.partial`` and renames it to ``out`` at the end; a failure keeps it only if it has weights."""
    folder = out.with_name(out.name + ".partial")
    for path in (out, folder):
        if path.exists():
            raise TrainingError(f"{path} exists; name another run folder, or remove it")
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        if (folder / CHECKPOINT).exists():
            print(f"the best weights so far are in {folder / CHECKPOINT}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
        raise
    folder.rename(out)


def write_results(config: TrainConfig, data: Data, fit: Fit, model: keras.Model, folder: Path) -> None:
    """Judges the model on the held-out test images and writes everything that is said about it."""
    test, labels = data.indices("test"), data.images.labels
    probabilities = predict(model, data, test)
    scores = probabilities[:, labels.index(config.positive)].astype(np.float64)
    positive = data.images.targets[test] == labels.index(config.positive)
    trivial = np.array([score_trivially(data.store.read(test[i : i + 1]))[0] for i in range(len(test))])
    figures = report.measure(scores, positive, data.groups[test], trivial, config.threshold)
    confusion = asdict(count_confusion(scores, positive, config.threshold))

    spec = ModelSpec(
        name=config.name,
        version=config.version,
        labels=labels,
        positive_label=config.positive,
        threshold=config.threshold,
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
    (folder / "report.md").write_text(page, encoding="utf-8")
    auc = figures["auc"]
    print(f"test AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})", file=sys.stderr)


def choose_reference(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns up to ``REFERENCE_IMAGES`` positions of test images, the first of each class."""
    share = REFERENCE_IMAGES // (int(targets.max()) + 1)
    return np.sort(np.concatenate([np.flatnonzero(targets == label)[:share] for label in np.unique(targets)]))
