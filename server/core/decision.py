"""From a model's answer to a label, or to why there is none."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from server.images.checks import Reason
from server.models.contract import ModelSpec
from server.models.runtime import Scores

OUT_OF_DISTRIBUTION = Reason(
    "OUT_OF_DISTRIBUTION",
    "The image is unlike those that the model knows, so its answer would be a guess: send one slice of a head CT, "
    "upright, in the model's window.",
)
INDETERMINATE = Reason(
    "INDETERMINATE", "The probability is too near to the threshold: by the model's own measure it is no answer."
)


def decide(probabilities: NDArray[np.float32], spec: ModelSpec) -> int:
    """Returns the index of the answered label.

    Raises:
        ArithmeticError: the model answered something that is not a probability; a fault of the model, not the image.
    """
    answer = probabilities.tolist()
    if not all(map(math.isfinite, answer)):
        raise ArithmeticError("the model's answer is not finite")
    return spec.find_label(answer)


def find_doubts(said: Scores, spec: ModelSpec) -> tuple[Reason, ...]:
    """Returns why the model itself does not answer an image; nothing where it does.

    A score or a distance from the threshold that is as large as the limit in the spec is answered, or far enough. Of an
    image that the model does not know the probability means nothing, and so it is not looked at.

    Args:
        said: what the model says of one image.
        spec: the limits.

    Raises:
        ArithmeticError: the score is not a number; a fault of the model, not of the image.
    """
    outlier_score = float(said.outlier[0])
    if not math.isfinite(outlier_score):
        raise ArithmeticError("the model's outlier score is not finite")
    if spec.outlier_threshold and outlier_score > spec.outlier_threshold:
        return (OUT_OF_DISTRIBUTION,)
    if abs(spec.positive_score(said.probabilities[0]) - spec.threshold) < spec.indeterminate_margin:
        return (INDETERMINATE,)
    return ()
