"""How a network is tuned: its last layers first, then all of them at a low rate; and which of what came out is kept.

New last layers would send large gradients through all others and undo what these know; so they learn first, alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.data.pixels import write_csv
from training.data.split import Data
from training.evaluation.calibration import compute_loss, fit_scaling
from training.evaluation.figures import Epoch
from training.evaluation.positive import find_indices, score_positive
from training.evaluation.ranking import compute_auc
from training.fit.monitor import HISTORY
from training.fit.network import Fit, fit_model, predict
from training.fit.weights import find_backbone, freeze_backbone
from training.own.parent import Parent
from training.progress import Part, Progress
from training.run.held_out import INTERRUPTED
from training.settings.tune_up import TuneUpConfig

LAST, WHOLE = "last-layers", "all-layers"
"""Names of the two stages, and of their folders."""

HEAD_LAYERS = (layers.Dense, layers.Dropout, layers.Activation, layers.ReLU, layers.Softmax)
"""What the last layers consist of: everything behind the last map or its mean."""


@dataclass(frozen=True)
class Candidate:
    """Weights that may be kept."""

    name: str
    epoch: int
    """In the history of both stages, 0 for the parent's own weights."""

    weights: list[NDArray[np.float32]]
    loss: float
    """On the validation images, once they are calibrated on them."""


@dataclass(frozen=True)
class Tuned:
    """What came out."""

    fit: Fit
    kept: str
    """Where the kept weights are from: the parent, or one of the stages."""


def tune(config: TuneUpConfig, data: Data, parent: Parent, folder: Path) -> Tuned:
    """Tunes the parent's network in two stages, and keeps what is best on the validation images.

    It is compared calibrated, as it will be served, and the parent's own weights are among what is compared.

    Args:
        config: the settings.
        data: images and split.
        parent: whose network is changed.
        folder: of the run; each stage has its checkpoints in a folder of its own in it.

    Raises:
        TrainingError: as ``training.fit.network.fit_model``.
    """
    network = parent.network
    candidates = [Candidate("parent", 0, list(network.get_weights()), measure_loss(network, data))]
    history = [measure_start(config, data, network)]
    stopped_by = "all epochs done"
    for name, epochs, rate in (
        (LAST, config.last_epochs, config.last_rate),
        (WHOLE, config.epochs, config.learning_rate),
    ):
        if not epochs:
            continue
        choose_trainable(network, only_last=name == LAST)
        own = folder / name
        own.mkdir(exist_ok=True)
        keras.utils.set_random_seed(config.seed)
        stage = replace(config, epochs=epochs, learning_rate=rate)
        fit = fit_model(stage, data, own, Part(Progress(name)), network, None)
        network.set_weights(fit.weights)
        best = len(history) - 1 + fit.best.epoch
        history += [replace(epoch, epoch=len(history) - 1 + epoch.epoch) for epoch in fit.history]
        candidates.append(Candidate(name, best, fit.weights, measure_loss(network, data)))
        stopped_by = f"{name}: {fit.stopped_by}"
        if fit.stopped_by == INTERRUPTED:
            break
    kept = min(candidates, key=lambda candidate: candidate.loss)
    write_csv(folder / HISTORY, list(vars(history[0])), [list(vars(epoch).values()) for epoch in history])
    fit = Fit(kept.weights, history[kept.epoch], tuple(history), stopped_by, used_lesions=False)
    return Tuned(fit, kept.name)


def choose_trainable(network: keras.Model, *, only_last: bool) -> None:
    """Says which layers learn: the last ones alone, or all.

    On a backbone of ours all are the classifier and every stage that a training can unfreeze, each as a training has
    it; see ``freeze_backbone``. In another network batch normalisation keeps its statistics: those of a small batch of
    slices would be worse.
    """
    network.trainable = True
    backbone = find_backbone(network)
    if backbone is not None:
        freeze_backbone(network, backbone, 0 if only_last else len(backbone.stages))
        return
    last = list_last_layers(network)
    for layer in network.layers:
        is_wanted = layer in last or not only_last
        layer.trainable = is_wanted and not isinstance(layer, layers.BatchNormalization)


def list_last_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers behind the last map or its mean, in order."""
    last: list[keras.layers.Layer] = []
    for layer in reversed(network.layers):
        if not isinstance(layer, HEAD_LAYERS):
            break
        last.insert(0, layer)
    return last


def measure_loss(network: keras.Model, data: Data) -> float:
    """Returns the loss of a network's answers on the validation images, once they are calibrated on them."""
    validation = data.indices("validation")
    probabilities, targets = predict(network, data, validation), data.images.targets[validation]
    return compute_loss(fit_scaling(probabilities, targets).apply(probabilities), targets)


def measure_start(config: TuneUpConfig, data: Data, network: keras.Model) -> Epoch:
    """Returns what the parent is worth before the first epoch, as epoch 0."""
    targets, figures = data.images.targets, {}
    for part in ("train", "validation"):
        indices = data.indices(part)
        answers = predict(network, data, indices)
        figures[part] = compute_loss(answers, targets[indices]), float((answers.argmax(1) == targets[indices]).mean())
    positive = find_indices(data.images.labels, config.positive)
    auc = compute_auc(score_positive(answers, positive), np.isin(targets[indices], positive))
    return Epoch(0, *figures["train"], *figures["validation"], auc, 0.0, 0.0)
