"""From a model's answer to a label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.models.contract import ModelSpec


def decide(probabilities: NDArray[np.float32], spec: ModelSpec) -> int:
    """Returns the index of the answered label.

    The positive label when its probability exceeds the threshold (as in the paper: risk > 0.05), otherwise the most
    probable of the others. The threshold stays the double that training chose and every answer carries: rounded to
    float32, as NumPy would compare it, it could lie on the other side of the probability.

    Raises:
        ArithmeticError: the model answered something that is not a probability; a fault of the model, not the image.
    """
    if not np.isfinite(probabilities).all():
        raise ArithmeticError("the model's answer is not finite")
    if float(probabilities[spec.positive_index]) > spec.threshold:
        return spec.positive_index
    others = probabilities.copy()
    others[spec.positive_index] = -1.0
    return int(others.argmax())
