"""``python -m bench.training.transfer``: a head on features of a frozen ResNet-50, beside ``fit`` through all of it.

Both sides have the same slices, views, order, seeds and first head, and judge the validation slices after each epoch.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.machine import say
from bench.report.tables import Budget
from bench.training.data import FOLDER, find_plain
from bench.training.page import Series, make_section, publish_training
from server.flags import LineParser, parse_settings, setting
from server.process.children import run_main
from server.process.console import silence_tensorflow
from training.settings.train import PRECISIONS

SLICES = 200
EPOCHS = 20
FROZEN_EPOCHS = 3
"""Epochs of the slow side that are really run; each one costs the same, which is shown, too."""
BATCH = 32
VIEWS = 2
"""As ``python -m training`` has it unless told."""
SEED = 7


@dataclass(frozen=True)
class TransferOptions:
    """What is measured."""

    rounds: int = setting(2, "rounds", least=1, most=1000)
    precisions: tuple[str, ...] = setting(PRECISIONS, "arithmetics of the training", choices=PRECISIONS)
    out: Path | None = setting(None, "folder for training.md and .json (default: only print)")


@dataclass
class Watch:
    """What one side was after each epoch."""

    seconds: list[float] = field(default_factory=list)
    """Since its start."""

    head: list[Any] = field(default_factory=list)
    """Weights after ``FROZEN_EPOCHS``."""

    probabilities: Any = None
    """[N, 2], of the validation slices after ``FROZEN_EPOCHS``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes."""
    parser = LineParser("python -m bench.training.transfer", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, TransferOptions, argv)
    with silence_tensorflow():
        import keras  # noqa: F401 - its greetings are over before anything is measured
    series: dict[str, Series] = {}
    budgets = []
    for precision in options.precisions:
        figures = measure_precision(precision, options.rounds)
        series |= {f"{precision}: {name}": entry for name, entry in figures.items()}
        ratio = figures[f"`fit` over features, {EPOCHS} epochs"].values
        budgets.append(Budget(f"{precision}: `fit` over features, {EPOCHS} epochs", 10, ratio, form=".1f"))
    section = make_section(
        (
            f"{SLICES} synthetic slices, {VIEWS} views of each training slice (head-ct), batch {BATCH}. ResNet-50 with "
            "random weights and the normalisation settled on the slices, so that features vary as trained ones do.",
            f"`fit` goes through the frozen network in every epoch; {FROZEN_EPOCHS} epochs were run, and the time of "
            f"{EPOCHS} is that of the first and {EPOCHS - 1} times the median of the others. The other side computes "
            f"the features, trains the head for {EPOCHS} epochs and puts the network together. Differences are those "
            f"after {FROZEN_EPOCHS} epochs.",
        ),
        series,
        budgets,
    )
    print(publish_training("transfer", section, options.out))
    return 0


def measure_precision(precision: str, rounds: int) -> dict[str, Series]:
    """Runs both sides in turns; times in seconds, differences as the largest of all values."""
    import keras

    from training.data.labels import list_data
    from training.data.pixels import decode_images
    from training.data.split import group_data, split_data
    from training.evaluation.ranking import compute_auc
    from training.fit.weights import make_network
    from training.settings.train import TrainConfig

    folder = FOLDER / "transfer"
    config = TrainConfig(
        data=find_plain(SLICES),
        out=folder,
        one_image_per_patient=True,
        model="resnet50",
        weights="none",
        precision=precision,
        epochs=EPOCHS,
        batch_size=BATCH,
        views=VIEWS,
        seed=SEED,
    )
    frozen_times, quick_times, feature_times, others = [], [], [], []
    weight_gaps, probability_gaps, auc_gaps = [], [], []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images = list_data(config)
    store, digests = decode_images(images, folder, lambda done, total: None)
    with store:
        data = split_data(config, group_data(config, images, store, digests), folder)
        positive = images.targets[data.indices("validation")] == 1
        keras.utils.set_random_seed(SEED)
        network = make_network(config)
        settle_normalisation(network, data)
        start = network.get_weights()
        for number in range(rounds):
            network.set_weights(start)
            slow = fit_through(network, config, data)
            network = make_network(config)
            network.set_weights(start)
            shutil.rmtree(folder / "features", ignore_errors=True)
            quick, seconds = fit_features(network, config, data, folder)
            epochs = np.diff([0.0, *slow.seconds])
            frozen_times.append(float(epochs[0] + (EPOCHS - 1) * statistics.median(epochs[1:])))
            others += epochs[1:].tolist()
            quick_times.append(quick.seconds[-1])
            feature_times.append(seconds)
            pairs = list(zip(slow.head, quick.head, strict=True))
            weight_gaps.append(float(max(np.abs(one - other).max() for one, other in pairs)))
            probability_gaps.append(float(np.abs(slow.probabilities - quick.probabilities).max()))
            aucs = [compute_auc(side.probabilities[:, 1].astype(np.float64), positive) for side in (slow, quick)]
            auc_gaps.append(abs(aucs[0] - aucs[1]))
            say(f"{precision}, round {number + 1}: {frozen_times[-1]:.0f} s and {quick_times[-1]:.0f} s")
    shutil.rmtree(folder)
    ratios = [one / other for one, other in zip(frozen_times, quick_times, strict=True)]
    return {
        f"`fit` through the network, {EPOCHS} epochs": Series("s", frozen_times, ".0f"),
        "an epoch of it after the first": Series("s", others, ".2f"),
        f"features and head, {EPOCHS} epochs": Series("s", quick_times, ".1f"),
        "of that the features": Series("s", feature_times, ".1f"),
        f"`fit` over features, {EPOCHS} epochs": Series("times", ratios, ".1f"),
        "largest difference of a head's weight": Series("", weight_gaps, ".1e"),
        "largest difference of a validation probability": Series("", probability_gaps, ".1e"),
        "difference of the validation AUC": Series("", auc_gaps, ".4f"),
    }


def settle_normalisation(network: Any, data: Any) -> None:
    """Sets the statistics of batch normalisation to those of a batch of slices, layer after layer."""
    import keras

    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in layers:
        layer.trainable, layer.momentum = True, 0.0
    network(np.repeat(data.store.read(data.indices("train")[:BATCH]), 3, axis=3), training=True)
    for layer in layers:
        layer.trainable = False


def fit_through(network: Any, config: Any, data: Any) -> Watch:
    """Trains the head in the whole network, on the views that the other side computes features of."""
    import tensorflow as tf

    from training.fit.augment import AUGMENTATIONS
    from training.fit.features import View, make_view_batches
    from training.fit.pipeline import make_batches, weigh_classes
    from training.fit.transfer import draw_epoch

    training, validation = data.indices("train"), data.indices("validation")
    views = [View(training, number) for number in range(config.views)]
    varied = make_view_batches(data.store, views, 0, seed=config.seed, augmentation=AUGMENTATIONS[config.augment])
    pixels = np.concatenate([batch[..., :1].numpy() for batch in varied])
    targets = data.images.targets[training]
    weights = weigh_classes(targets, balanced=True)

    def list_batches() -> Iterator[Any]:
        for epoch in range(FROZEN_EPOCHS):
            order, chosen = draw_epoch(config.seed, epoch, len(training), config.views)
            for first in range(0, len(training), BATCH):
                batch = order[first : first + BATCH]
                rows = chosen[first : first + BATCH] * len(training) + batch
                yield np.repeat(pixels[rows], 3, axis=3), targets[batch], weights[targets[batch]]

    side = (None, *network.input_shape[1:])
    signature = (tf.TensorSpec(side), tf.TensorSpec([None], tf.int64), tf.TensorSpec([None]))
    batches = tf.data.Dataset.from_generator(list_batches, output_signature=signature).prefetch(4)

    def predict() -> Any:
        return np.concatenate(
            [network.predict_on_batch(images) for images in make_batches(data.store, validation, BATCH)]
        )

    watch = Watch()
    started = time.perf_counter()
    run_fit(network, network, batches, predict, watch, FROZEN_EPOCHS, config, started)
    return watch


def fit_features(network: Any, config: Any, data: Any, folder: Path) -> tuple[Watch, float]:
    """Trains the head on features, as ``python -m training`` does; also returns the seconds until they were there."""
    from training.fit.pipeline import weigh_classes
    from training.fit.transfer import ClassifierTraining

    targets = data.images.targets[data.indices("train")]
    watch = Watch()
    started = time.perf_counter()
    with ClassifierTraining(config, data, network, folder) as head:
        features = time.perf_counter() - started
        weights = weigh_classes(targets, balanced=True)
        batches = head.make_batches(targets, weights, BATCH, seed=config.seed, epochs=range(EPOCHS))
        run_fit(network, head.model, batches, head.predict, watch, EPOCHS, config, started)
        head.assemble(head.model.get_weights())
    watch.seconds.append(time.perf_counter() - started)
    return watch, features


def run_fit(
    network: Any, model: Any, batches: Any, predict: Any, watch: Watch, epochs: int, config: Any, started: float
) -> None:
    """The same ``fit`` for both sides: optimiser, loss, and a look at the validation slices after each epoch."""
    import keras

    from training.fit.optimizer import make_optimizer
    from training.fit.weights import classifier_layers

    steps = math.ceil(0.7 * SLICES / BATCH)

    def look(epoch: int, logs: Any) -> None:
        probabilities = predict()
        watch.seconds.append(time.perf_counter() - started)
        if epoch + 1 == FROZEN_EPOCHS:
            watch.probabilities = probabilities
            watch.head = [array for layer in classifier_layers(network) for array in layer.get_weights()]

    optimizer = make_optimizer(config.learning_rate, config.precision, EPOCHS * steps)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=look)],
        shuffle=False,
        verbose=0,
    )


if __name__ == "__main__":
    run_main(main)
