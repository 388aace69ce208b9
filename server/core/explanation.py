"""Where in an image the evidence for an answer lies. For research: a place that it shows is no finding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.errors import IncapableModelError
from server.images.overlay import Box, draw_overlay
from server.models.runtime import OnnxModel


@dataclass(frozen=True)
class Explanation:
    """What Explain says beside the judgement."""

    heatmap: NDArray[np.float32]
    """[rows, columns], >= 0, not scaled: what the log-odds of the positive labels gain from each cell (HiResCAM)."""

    overlay_png: bytes
    """The image as the model sees it, under the heatmap."""

    box: Box
    """Where the heatmap lies in the overlay, in its pixels."""


def explain(model: OnnxModel, pixels: NDArray[np.uint8]) -> Explanation:
    """Explains the answer of a model that has an explainer.

    Args:
        model: what has answered.
        pixels: uint8 [height, width, channels], what it has seen.

    Raises:
        ArithmeticError: the heatmap has a cell that is no number; a fault of the model, not the image.
    """
    assert model.explainer is not None
    heatmap = model.explainer.run(pixels[np.newaxis])[0]
    if not np.isfinite(heatmap).all():
        raise ArithmeticError("the model's heatmap is not finite")
    overlay_png, box = draw_overlay(pixels, heatmap, model.explainer.area)
    return Explanation(heatmap, overlay_png, box)


def refuse_model(model: OnnxModel) -> IncapableModelError:
    return IncapableModelError(
        "MODEL_CANNOT_EXPLAIN",
        f"{model.spec.name} {model.spec.version} has no heatmap: it was converted without one, or cannot have one.",
    )
