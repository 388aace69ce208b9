"""The fit itself: network, optimiser, batches and what stops it; and predictions on images of the store."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from training.data.split import Data
from training.errors import TrainingError
from training.evaluation.figures import Epoch
from training.evaluation.positive import find_indices
from training.fit.augment import AUGMENTATIONS
from training.fit.checkpoint import remove_checkpoints
from training.fit.localisation import add_lesion_heads, find_taps, lesion_loss
from training.fit.models import BACKBONES
from training.fit.monitor import Monitor
from training.fit.optimizer import make_optimizer
from training.fit.pipeline import make_batches, make_training_batches, weigh_classes
from training.fit.transfer import ClassifierTraining, has_frozen_backbone
from training.fit.weights import list_slow_variables, make_network
from training.progress import Part
from training.settings.train import TrainConfig

PREDICTION_BATCH = 32


@dataclass(frozen=True)
class Fit:
    """What came out of the fit."""

    weights: list[NDArray[np.float32]]
    best: Epoch
    history: tuple[Epoch, ...]
    stopped_by: str
    used_lesions: bool


def fit_network(config: TrainConfig, data: Data, folder: Path, progress: Part) -> Fit:
    """Fits the network until the epochs are over, validation stops it, or Ctrl-C does; goes on from a checkpoint.

    Args:
        config: the settings.
        data: images and split.
        folder: where checkpoint and history are written, and a checkpoint is looked for.
        progress: where progress is shown.

    Raises:
        TrainingError: no epoch gave weights that are numbers, or the checkpoint cannot be written.
        KeyboardInterrupt: there was no finished epoch to keep, or it is one of the folds.
    """
    network = make_network(config, len(data.images.labels))
    if not has_frozen_backbone(config):
        return fit_model(config, data, folder, progress, network, None)
    with ClassifierTraining(config, data, network, folder) as classifier:
        fit = fit_model(config, data, folder, progress, classifier.model, classifier)
        return replace(fit, weights=classifier.assemble(fit.weights))


def fit_model(
    config: TrainConfig,
    data: Data,
    folder: Path,
    progress: Part,
    model: keras.Model,
    classifier: ClassifierTraining | None,
) -> Fit:
    """Fits a whole network on images, or the classifier of one on the features of its backbone; see ``fit_network``."""
    targets = data.images.targets
    training, validation = data.indices("train"), data.indices("validation")
    steps = math.ceil(len(training) / config.batch_size)
    slow = list_slow_variables(model)
    optimizer = make_optimizer(
        config.learning_rate, config.precision, config.epochs * steps, slow, config.backbone_rate
    )
    label_loss = "sparse_categorical_crossentropy"
    has_masks = data.store.has_lesions and config.lesion_weight > 0
    named = BACKBONES[config.model].taps if config.model in BACKBONES else ()
    taps = find_taps(model, named) if has_masks else ()
    if taps:
        trained = add_lesion_heads(model, taps)
        heads = len(trained.outputs) - 1
        trained.compile(
            optimizer,
            loss=[label_loss, *[lesion_loss] * heads],
            loss_weights=[1.0, *[config.lesion_weight] * heads],
            metrics=[["accuracy"], *[[]] * heads],
        )
        print(f"lesion masks found: {heads} auxiliary heads learn where the lesion is", file=sys.stderr)
    else:
        trained = model
        trained.compile(optimizer, loss=label_loss, metrics=["accuracy"])
    monitor = Monitor(
        model,
        folder,
        classifier.predict if classifier else lambda: predict(model, data, validation),
        targets[validation],
        positive=find_indices(data.images.labels, config.positive),
        patience=config.patience,
        epochs=config.epochs,
        image_count=len(training),
        batch_size=config.batch_size,
        progress=progress,
    )
    monitor.resume(trained)
    done = len(monitor.history)
    epochs, balanced = range(done, config.epochs), config.class_weights == "balanced"
    if classifier:
        weights = weigh_classes(targets[training], balanced=balanced)
        batches = classifier.make_batches(
            targets[training], weights, config.batch_size, seed=config.seed, epochs=epochs
        )
    else:
        batches = make_training_batches(
            data.store,
            training,
            targets[training],
            config.batch_size,
            seed=config.seed,
            epochs=epochs,
            augmentation=AUGMENTATIONS[config.augment],
            balanced=balanced,
            taps=taps,
        )
    stopped_by = "all epochs done"
    try:
        if not monitor.is_over:
            # The batches are shuffled already; Keras warns unless it is told not to.
            trained.fit(
                batches,
                initial_epoch=done,
                epochs=config.epochs,
                steps_per_epoch=steps,
                callbacks=[monitor],
                shuffle=False,
                verbose=0,
            )
        if len(monitor.history) < config.epochs:
            stopped_by = f"no lower validation loss for {config.patience} epochs"
    except KeyboardInterrupt:
        if monitor.best is None or config.folds:
            raise
        stopped_by = "interrupted"
    if monitor.best is None:
        remove_checkpoints(folder)
        raise TrainingError("no epoch gave weights and a loss that are numbers; lower --learning-rate")
    progress.print_line(f"{stopped_by}; epoch {monitor.best.epoch} is kept")
    left_out = monitor.steps - int(optimizer.iterations)
    if left_out > 0:  # an interrupt can leave the last step uncounted
        print(f"{left_out} of {monitor.steps} steps were left out: their gradient was not a number", file=sys.stderr)
    used_lesions = trained is not model
    return Fit(monitor.best_weights, monitor.best, tuple(monitor.history), stopped_by, used_lesions)


def predict(model: keras.Model, data: Data, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the probabilities [len(indices), classes] of some images."""
    batches = make_batches(data.store, indices, PREDICTION_BATCH)
    return np.concatenate([model.predict_on_batch(images) for images in batches])
