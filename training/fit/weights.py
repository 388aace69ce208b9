"""The weights that a network starts with: a backbone's published ones, those of an earlier run, or random ones."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import keras

from training.data.groups import SPLITS
from training.data.split import Data
from training.errors import TrainingError
from training.fit.models import BACKBONES, FEATURES, MODELS, Backbone
from training.settings.train import TrainConfig

RANDOM_WARNING = (
    "WARNING: --weights none: the backbone's weights are RANDOM. Frozen random features are for tests of the machinery "
    "only; no figure of this run says anything about the method."
)
UNKNOWN_PAST_WARNING = (
    "WARNING: there is no split.csv beside --weights {path}: that these weights have seen this run's validation or "
    "test images CANNOT BE EXCLUDED."
)


def find_weights(config: TrainConfig) -> Path | None:
    """Returns the file with the weights that a network starts with, None for random ones; looks before anything else.

    Raises:
        TrainingError: it is not there, or not what it should be.
    """
    if config.model not in BACKBONES or config.weights == "none":
        return None
    published = BACKBONES[config.model].published
    if config.weights == "imagenet":
        return published.find()
    path = Path(config.weights)
    suffixes = sorted({".h5", ".keras", Path(published.name).suffix})
    if not path.is_file():
        raise TrainingError(f"--weights {path}: there is no such file; it is imagenet, none, or a file")
    if path.suffix not in suffixes:
        raise TrainingError(f"--weights {path}: must be a {' or '.join(suffixes)} file")
    return path


def make_network(config: TrainConfig, classes: int = 2) -> keras.Model:
    """Builds the network of a run with the weights that it starts with, and freezes what is not to be trained.

    Raises:
        TrainingError: the file of weights is missing, unreadable, or of another network.
    """
    network = MODELS[config.model](config.precision, classes=classes)
    if config.model in BACKBONES:
        path = find_weights(config)
        if path is not None:
            load_weights(network, path, BACKBONES[config.model])
        freeze_backbone(network, BACKBONES[config.model], config.unfreeze)
    return network


def load_weights(network: keras.Model, path: Path, backbone: Backbone) -> None:
    """Loads a backbone's published weights, without top, or all weights of an earlier run's model.

    Raises:
        TrainingError: the file is unreadable, or of another network.
    """
    published = is_published(path)
    try:
        if published:
            backbone.load(network, path)
        else:
            network.set_weights(keras.models.load_model(path, compile=False).get_weights())
    except Exception as error:  # Keras and h5py raise whatever they stumble on
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"--weights {path}: neither {network.name} without its top nor a model of a {network.name} run ({reason})"
        ) from None


def is_published(path: Path) -> bool:
    """Returns whether a file has weights only, as those of a backbone are published, rather than a whole model.

    Raises:
        TrainingError: it is named .h5 and is not HDF5.
    """
    if path.suffix != ".h5":
        return path.suffix == ".pth"
    try:
        with h5py.File(path) as file:
            return "model_config" not in file.attrs
    except OSError:
        raise TrainingError(f"--weights {path}: not an HDF5 file; is it complete?") from None


def find_backbone(network: keras.Model) -> Backbone | None:
    """Returns what a network stands on, where ``make_network`` has built it; None of any other, whatever its name."""
    return BACKBONES.get(network.name) if has_features(network) else None


def freeze_backbone(network: keras.Model, backbone: Backbone, unfreeze: int) -> None:
    """Leaves the classifier and the convolutions of the last stages trainable, and nothing else.

    Batch normalisation stays frozen, which in Keras also means that it runs in inference mode: its statistics come from
    millions of images, and those of a small batch of slices would be worse. Only in stages that are trained, and where
    the backbone needs it, does it learn. Depthwise kernels stay frozen everywhere: they look at one channel each, as
    edges are looked at anywhere, and their gradients take longer than those of all other layers.

    Args:
        network: as ``make_network`` builds it.
        backbone: what it stands on.
        unfreeze: number of stages, from the last.
    """
    stages = tuple(prefix for stage in backbone.stages[:unfreeze] for prefix in stage)
    classifier = [layer.name for layer in classifier_layers(network)]
    frozen = [keras.layers.DepthwiseConv2D]
    if not backbone.adapts_normalisation:
        frozen.append(keras.layers.BatchNormalization)
    for layer in network.layers:
        is_unfrozen = layer.name.startswith(stages) and not isinstance(layer, tuple(frozen))
        layer.trainable = layer.name in classifier or is_unfrozen


def classifier_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers behind the features, in order."""
    names = [layer.name for layer in network.layers]
    return list(network.layers[names.index(FEATURES) + 1 :])


def has_features(network: keras.Model) -> bool:
    return FEATURES in (layer.name for layer in network.layers)


def list_slow_variables(network: keras.Model) -> frozenset[str]:
    """Returns the paths of the trainable variables before the classifier: those to be trained at a lower rate."""
    if not has_features(network):
        return frozenset()
    classifier = {variable.path for layer in classifier_layers(network) for variable in layer.trainable_variables}
    return frozenset(variable.path for variable in network.trainable_variables) - classifier


def check_weights_past(config: TrainConfig, data: Data) -> tuple[str, ...]:
    """Makes sure that weights of an earlier run were not trained on what this run validates or tests with.

    Returns:
        Warnings for the report.

    Raises:
        TrainingError: they were.
    """
    if config.model not in BACKBONES or config.weights == "imagenet":
        return ()
    if config.weights == "none":
        return (RANDOM_WARNING,)
    path = Path(config.weights)
    if is_published(path):
        return ()
    split = path.with_name("split.csv")
    if not split.is_file():
        return (UNKNOWN_PAST_WARNING.format(path=path),)
    seen = count_seen(split, data)
    if seen:
        raise TrainingError(
            f"--weights {path}: these weights have seen {seen:,} of this run's validation or test images; use the same "
            "--data, --seed and shares as that run, so that the split is the same"
        )
    return ()


def count_seen(split: Path, data: Data) -> int:
    """Returns how many of this run's validation or test images an earlier run, of which this is ``split.csv``, has
    trained on, or has tested with less than this run does."""
    with split.open(newline="", encoding="utf-8") as file:
        before = {row["sha256"]: SPLITS.index(row["split"]) for row in csv.DictReader(file)}
    # Training comes first, test last: what weights have seen may only go where it tells less.
    pairs = zip(data.digests, data.split.tolist(), strict=True)
    return sum(before.get(digest, part) < part for digest, part in pairs)
