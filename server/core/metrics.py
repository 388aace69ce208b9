"""What is counted of outcomes, and what is asked of the parts of a server when somebody looks.

Counted here and not in a transport, so that all transports count alike. How it is shown is for ``server.metrics``.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from server.core import metric_names as names
from server.core.detector import Detection
from server.core.metric_names import MOST_SERIES, Metric
from server.core.outcomes import Outcome
from server.core.study.answer import StudyAnswer

logger = logging.getLogger(__name__)

Labels: TypeAlias = tuple[str, ...]
"""Values of a metric's labels, in their order."""

Reading: TypeAlias = float | Mapping[Labels, float]
"""The value of a metric without labels, or one for each."""

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Spread:
    """A histogram at a moment."""

    counts: tuple[int, ...]
    """Of each bucket, not cumulated; the last has no bound."""

    total: float
    """Sum of the values."""


class Counter:
    """Counts by label values, of which there are at most ``MOST_SERIES``. Not safe to call from several threads."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.values: dict[Labels, int] = {}

    def count(self, labels: Labels) -> None:
        """One more."""
        if labels in self.values:
            self.values[labels] += 1
        elif len(self.values) < MOST_SERIES:
            self.values[labels] = 1
        else:
            others = (OTHER,) * len(labels)
            self.values[others] = self.values.get(others, 0) + 1


class Histogram:
    """Values of a few label values, by buckets. Not safe to call from several threads."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._buckets = metric.buckets
        self._counts: dict[Labels, list[int]] = {}
        self._totals: dict[Labels, float] = {}

    def observe(self, value: float, labels: Labels = ()) -> None:
        """One more value."""
        counts = self._counts.get(labels)
        if counts is None:
            if len(self._counts) >= MOST_SERIES:
                labels = (OTHER,) * len(labels)
            counts = self._counts.setdefault(labels, [0] * (len(self._buckets) + 1))
            self._totals.setdefault(labels, 0.0)
        counts[bisect_left(self._buckets, value)] += 1
        self._totals[labels] += value

    @property
    def spreads(self) -> dict[Labels, Spread]:
        """What there is."""
        return {labels: Spread(tuple(counts), self._totals[labels]) for labels, counts in self._counts.items()}


class Metrics:
    """Counts outcomes: a ``Recorder``. One lock for all of an outcome, held for some microseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests, self._images = Counter(names.REQUESTS), Counter(names.IMAGES)
        self._answers, self._not_analysed = Counter(names.ANSWERS), Counter(names.NOT_ANALYSED)
        self._studies = Counter(names.STUDIES)
        self._probability = Histogram(names.PROBABILITY)
        self._duration, self._queue = Histogram(names.DURATION), Histogram(names.QUEUE)
        self._decode, self._inference = Histogram(names.DECODE), Histogram(names.INFERENCE)

    def expect(self, methods: Sequence[str]) -> None:
        """Shows success and fault of methods of images before there are any: Prometheus sees no increase in a series
        that begins with 1, and the first fault would raise no alarm."""
        with self._lock:
            for method in methods:
                for status in (("OK", ""), ("INTERNAL", "INTERNAL")):
                    self._images.values.setdefault((method, *status), 0)

    def note(self, outcome: Outcome) -> None:
        """See ``Recorder``."""
        status = (outcome.method, outcome.code, outcome.reason)
        with self._lock:
            if outcome.is_call:
                self._requests.count(status)
            if outcome.is_image:
                self._images.count(status)
                result = "refused" if outcome.detection is None else "judged"
                self._duration.observe(outcome.ended - outcome.started, (result,))
            if outcome.detection is not None:
                self._note_detection(outcome.detection)
            if outcome.study is not None:
                self._note_study(outcome.study)

    def _note_detection(self, detection: Detection) -> None:
        self._queue.observe(detection.queue_ms / 1000)
        self._decode.observe(detection.decode_ms / 1000)
        self._inference.observe(detection.inference_ms / 1000)
        spec = detection.model.spec
        if detection.label:
            is_positive = "true" if detection.label in spec.positive_labels else "false"
            self._answers.count((spec.name, spec.version, detection.label, is_positive))
            self._probability.observe(detection.positive_probability, (spec.name, spec.version))
        for reason in detection.reasons:
            self._not_analysed.count((spec.name, spec.version, reason.reason))

    def _note_study(self, study: StudyAnswer) -> None:
        spec = study.model.spec
        outcome = "positive" if study.label in spec.positive_labels else "negative"
        self._studies.count((spec.name, spec.version, study.reasons[0].reason if study.reasons else outcome))

    def read_counts(self) -> list[tuple[Metric, dict[Labels, int]]]:
        """All counters, as they are together at one moment."""
        with self._lock:
            counters = (self._requests, self._images, self._answers, self._not_analysed, self._studies)
            return [(counter.metric, dict(counter.values)) for counter in counters]

    def read_spreads(self) -> list[tuple[Metric, dict[Labels, Spread]]]:
        """All histograms, as they are together at one moment."""
        with self._lock:
            histograms = (self._probability, self._duration, self._queue, self._decode, self._inference)
            return [(histogram.metric, histogram.spreads) for histogram in histograms]


class Gauges:
    """What is not counted but asked for, of whoever knows. A metric that nobody provides is not shown."""

    def __init__(self) -> None:
        self._readers: list[tuple[Metric, Callable[[], Reading]]] = []

    def provide(self, metric: Metric, read: Callable[[], Reading]) -> None:
        """Says whom to ask; of a metric with labels several may know some.

        Args:
            metric: a gauge, or a counter that is kept elsewhere; of ``server.core.metric_names``.
            read: its value, or one for each of its labels' values; asked in any thread, must not wait. One that raises
                is as if it were not there.
        """
        self._readers.append((metric, read))

    def read(self) -> list[tuple[Metric, dict[Labels, float]]]:
        """What those who know say now."""
        found: dict[Metric, dict[Labels, float]] = {}
        for metric, read in list(self._readers):
            try:
                reading = read()
            except Exception as error:
                logger.debug("metric %s cannot be read (%s)", metric.name, type(error).__name__)
                continue
            series = found.setdefault(metric, {})
            for labels, value in reading.items() if isinstance(reading, Mapping) else (((), reading),):
                if len(series) < MOST_SERIES:
                    series[labels] = value
        return list(found.items())
