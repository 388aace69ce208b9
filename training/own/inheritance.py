"""What a tuned model takes over from the one that it is made of: name, next version, window, labels and their order."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from server.models.contract import ModelSpec
from training.data.labels import ImageSet
from training.errors import TrainingError
from training.judge.labels import find_positive, match_labels
from training.own.parent import Parent
from training.settings.tune_up import NEXT_VERSION, OWN_NAME, TuneUpConfig


def settle(config: TuneUpConfig, spec: ModelSpec) -> TuneUpConfig:
    """Returns the settings with what the parent says: name, version, window and positive labels of the result."""
    after = str(int(spec.version) + 1) if spec.version.isdigit() else f"{spec.version}.1"
    windows = tuple(f"{window.level:g},{window.width:g}" for window in spec.windows)
    return replace(
        config,
        name=spec.name if config.name == OWN_NAME else config.name,
        version=after if config.version == NEXT_VERSION else config.version,
        window=windows or config.window,
    )


def take_labels(config: TuneUpConfig, images: ImageSet, parent: Parent) -> ImageSet:
    """Returns the images with the parent's labels, in its order: of the same names, or of two as --positive says.

    Raises:
        TrainingError: the labels are not those of the parent.
    """
    own = parent.spec.labels
    places = match_labels(images.labels, own)
    known = [place for place in places.values() if place is not None]
    if len(images.labels) == len(own) == len(set(known)):
        order = np.array(known, np.int64)
        return replace(images, labels=own, targets=order[images.targets])
    if len(images.labels) == len(own) == 2 and not known:
        positive = find_positive(config, images, parent.spec.positive_labels)
        column = parent.spec.positive_indices[0]
        print(f"{', '.join(images.labels)} of the data are taken for {', '.join(own)} of the model", file=sys.stderr)
        return replace(images, labels=own, targets=np.where(positive, column, 1 - column).astype(np.int64))
    raise TrainingError(
        f"{images.root} has the labels {', '.join(images.labels)}, and {parent.name} tells {', '.join(own)}: a model "
        "is tuned on all of its own labels, and no others"
    )
