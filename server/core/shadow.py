"""Shadows: models on trial that score what others have answered, when nothing else is to be done.

An image is scored after its answer has left, in one thread of low priority, by a model that has no other thread. What
comes while the server has other images to judge, or faster than the shadow can score, is dropped and counted: nobody
waits for a shadow. What is kept are figures, never an image.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from server.core.decision import decide, find_doubts
from server.images.image_file import ImageLimits
from server.images.preprocess import Scan, load_pixels
from server.machine.priority import lower_priority
from server.models.family import Served

logger = logging.getLogger(__name__)

MOST_WAITING = 8
MOST_WAITING_BYTES = 16 * 1024 * 1024
DELAY_SECONDS = 0.02
"""After a judgement: by then its answer has left."""

TIMES = 1000
"""Of the last runs, of which the median is told."""


@dataclass
class ShadowReport:
    """How a shadow compares with what has answered. Written by one thread."""

    images: int = 0
    agreed: int = 0
    dropped: int = 0
    failed: int = 0
    total_difference: float = 0.0
    largest_difference: float = 0.0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Images by the label that was answered and that of the shadow, where they differ; empty: it is in doubt."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=TIMES))
    """Of runs, in milliseconds."""

    @property
    def agreement(self) -> float:
        """Share of the images with the same label; 0 before the first."""
        return self.agreed / max(1, self.images)

    @property
    def mean_difference(self) -> float:
        """Mean absolute difference of the positive labels' probability; 0 before the first."""
        return self.total_difference / max(1, self.images)

    @property
    def median_ms(self) -> float:
        """Of the last runs; 0 before the first."""
        times = sorted(self.times)
        return times[len(times) // 2] if times else 0.0


@dataclass(frozen=True)
class Comparison:
    """An image that was answered, and is to be scored."""

    shadow: Served
    image: Scan
    pixels: NDArray[np.uint8] | None
    """uint8 [height, width, channels], as the shadow takes them; None: they are to be made of the image."""

    label: str
    """By the model alone, whatever the checks have said; empty: it is in doubt."""

    positive: float
    """Probability of the positive labels."""

    ready: float
    """When it may be scored, in seconds of ``time.monotonic``."""

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        if self.pixels is not None:
            return self.pixels.nbytes
        return len(self.image) if isinstance(self.image, bytes) else self.image.nbytes


class Shadows:
    """Scores for all shadows of a server. Safe to call from many threads."""

    def __init__(self, limits: ImageLimits, is_busy: Callable[[], bool]) -> None:
        """Has no thread yet.

        Args:
            limits: what an image may be.
            is_busy: whether there is other work.
        """
        self._limits, self._is_busy = limits, is_busy
        self._changed = threading.Condition()
        self._waiting: deque[Comparison] = deque()
        self._waiting_bytes = 0
        self._reports: WeakKeyDictionary[Served, ShadowReport] = WeakKeyDictionary()
        self._is_started = False

    def report_on(self, shadow: Served) -> ShadowReport:
        """What a shadow has found so far."""
        with self._changed:
            return self._reports.setdefault(shadow, ShadowReport())

    def offer(
        self,
        shadow: Served,
        image: Scan,
        pixels: NDArray[np.uint8] | None,
        label: str,
        positive: float,
    ) -> None:
        """Takes an image that was judged, or drops it. Never waits."""
        comparison = Comparison(shadow, image, pixels, label, positive, time.monotonic() + DELAY_SECONDS)
        with self._changed:
            is_full = len(self._waiting) >= MOST_WAITING or self._waiting_bytes + comparison.size > MOST_WAITING_BYTES
            if is_full or self._is_busy():
                self._reports.setdefault(shadow, ShadowReport()).dropped += 1
                return
            self._waiting.append(comparison)
            self._waiting_bytes += comparison.size
            self._changed.notify()
            if not self._is_started:
                self._is_started = True
                threading.Thread(target=self._work, name="shadow", daemon=True).start()

    def _work(self) -> None:
        lower_priority()
        while True:
            self._score(self._take())

    def _take(self) -> Comparison:
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            comparison = self._waiting.popleft()
            self._waiting_bytes -= comparison.size
        time.sleep(max(0.0, comparison.ready - time.monotonic()))
        return comparison

    def _score(self, comparison: Comparison) -> None:
        """Scores one image. Never raises."""
        served, report = comparison.shadow, self.report_on(comparison.shadow)
        model = served.model
        try:
            pixels = comparison.pixels
            if pixels is None:
                pixels = load_pixels(comparison.image, model.input_format, self._limits).array
            started = time.monotonic()
            said = model.score(pixels[np.newaxis])
            seconds = time.monotonic() - started
            index = decide(said.probabilities[0], model.spec)
            label = "" if find_doubts(said, model.spec) else model.spec.labels[index]
        except Exception as error:
            report.failed += 1
            logger.debug("the shadow %s has failed (%s)", served.release.version, type(error).__name__)
            return
        served.usage.note(seconds)
        difference = abs(model.spec.positive_score(said.probabilities[0]) - comparison.positive)
        report.times.append(1000 * seconds)
        report.total_difference += difference
        report.largest_difference = max(report.largest_difference, difference)
        report.agreed += label == comparison.label
        if label != comparison.label:
            report.changes[comparison.label, label] += 1
        report.images += 1
