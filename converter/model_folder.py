"""A model folder: the golden vectors that are recorded in it, and how it is put into place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from converter.errors import TargetError
from server.errors import ModelFileError
from server.machine.processors import count_processors
from server.models import installation
from server.models.golden import GoldenVector, make_golden_input
from server.models.runtime import OnnxModel

GOLDEN_TOLERANCE = 1e-4
"""The same between the machine that converts and one that serves: other processors take other fp32 kernels."""

INT8_TOLERANCE = 0.02
"""The same for an INT8 variant, against its own answers where it was made: a value that another kernel rounds the other
way moves its layer by one level of 255."""

GOLDEN_CANDIDATES = 64
GOLDEN_VECTORS = 4

GOLDEN_ROUND = 16
HESITANT = 0.6
"""Golden vectors below this probability are good enough to look no further: 96 % of the slope that 0.5 has."""


def make_golden_vectors(model: OnnxModel) -> tuple[GoldenVector, ...]:
    """Picks the inputs on which the model is least certain: a saturated answer would hide a changed weight."""
    chosen: list[GoldenVector] = []
    for first in range(0, GOLDEN_CANDIDATES, GOLDEN_ROUND):
        candidates = chosen + answer_golden(model, range(first, first + GOLDEN_ROUND))
        chosen = sorted(candidates, key=lambda vector: max(vector.probabilities))[:GOLDEN_VECTORS]
        if max(chosen[-1].probabilities) < HESITANT:
            break
    return tuple(chosen)


def answer_golden(model: OnnxModel, seeds: Sequence[int]) -> list[GoldenVector]:
    """The model's answers to golden inputs; each is computed by one thread, as many at a time as processors."""
    shape = (model.input_format.height, model.input_format.width, model.input_format.channels)
    with ThreadPoolExecutor(count_processors()) as pool:
        said = pool.map(lambda seed: model.score(make_golden_input(seed, *shape)[np.newaxis]), seeds)
    return [
        GoldenVector(seed, tuple(map(float, one.probabilities[0])), float(one.outlier[0]))
        for seed, one in zip(seeds, said, strict=True)
    ]


def install(files: Mapping[str, bytes], out: Path, *, force: bool) -> None:
    """Puts a model folder into place, see ``server.models.installation``.

    Raises:
        TargetError: the folder cannot be written, or what was written does not load; what was there before is there.
    """
    try:
        installation.install(files, out, force=force)
    except ModelFileError as error:
        raise TargetError(f"the written model does not load: {error.message}") from None
    except OSError as error:
        raise TargetError(f"{out}: cannot be written ({error.strerror})") from None
