"""The labels of a data folder beside those of the model that judges it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.labels import ImageSet
from training.evaluation.figures import Bools, ClassAnswers, Floats
from training.evaluation.positive import find_indices
from training.judge.predictors import Predictor
from training.settings.listing import DataConfig


def find_positive(config: DataConfig, images: ImageSet, own: Sequence[str] = ()) -> Bools:
    """Returns [N], whether the label of each image is a positive one.

    Args:
        config: says which these are.
        images: of N.
        own: the positive labels of the model, for data that have its labels, where nothing else was said.

    Raises:
        TrainingError: the data lack a label that was named, or have no others.
    """
    candidates: list[Sequence[str]] = [config.positive, ("1",)]
    if config.positive == DataConfig.positive:
        candidates.append([label for label, index in match_labels(images.labels, own).items() if index is not None])
    names = next((names for names in candidates if names and set(names) <= set(images.labels)), None)
    names = config.positive if names is None else names
    images.require(names)
    positive: Bools = np.isin(images.targets, find_indices(images.labels, names))
    return positive


def match_labels(labels: Sequence[str], own: Sequence[str]) -> dict[str, int | None]:
    """Returns which of the model's ``own`` labels each label of the data is, whatever its case; None where none."""
    places = {label.casefold(): index for index, label in enumerate(own)}
    return {label: places.get(label.casefold()) for label in labels}


def tell_classes(
    images: ImageSet, predictor: Predictor, indices: NDArray[np.int64], probabilities: Floats
) -> ClassAnswers | None:
    """Returns the answers on some images by class; None where there are two, or the data have labels of their own."""
    places = match_labels(images.labels, predictor.labels)
    if len(predictor.labels) == 2 or None in places.values():
        return None
    targets = np.array([places[label] for label in images.labels])[images.targets[indices]]
    positive = find_indices(predictor.labels, predictor.positive_labels)
    return ClassAnswers(predictor.labels, positive, probabilities, targets)
