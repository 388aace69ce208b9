"""Whether integers are faster: the processor's time of an INT8 variant for one image, against that of fp32."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from server.models.runtime import OnnxModel

ROUNDS = 12
MOST_SECONDS = 20.0


def compare_speed(variant: OnnxModel, reference: OnnxModel, image: NDArray[np.uint8]) -> float:
    """Returns how many times faster a variant answers: fp32's time over its own, one thread, in turn.

    The time is the thread's own, so that what else the machine does counts little, and the shortest of some rounds.

    Args:
        variant, reference: loaded with one thread.
        image: uint8 [height, width, channels].
    """
    shortest = [np.inf, np.inf]
    started = time.monotonic()
    for number in range(ROUNDS + 1):  # the first of each is slower, and not the shortest
        for place, model in enumerate((variant, reference)):
            before = time.thread_time()
            model.run(image[np.newaxis])
            shortest[place] = min(shortest[place], time.thread_time() - before)
        if number and time.monotonic() - started > MOST_SECONDS:
            break
    return float(shortest[1] / max(shortest[0], 1e-9))
