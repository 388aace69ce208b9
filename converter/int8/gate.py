"""The accuracy gate: a quantised model is written only if it decides as the model that it was made from."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from converter.int8.calibrate import LEAST_HELD_OUT, CalibrationSets, Slices
from converter.int8.watch import TimeIsUp, Watch
from converter.pixels.sampling import spread_evenly
from server.machine.processors import count_processors
from server.models.agreement import (
    LEAST_AGREEMENT,
    add_probabilities,
    find_differences,
    is_alike,
    list_sets,
    share_labels,
)
from server.models.runtime import OnnxModel

MOST_MEAN_DIFFERENCE = 0.01
MOST_AUC_DROP = 0.005

SHARES_OF_TIME = (0.08, 0.16)
"""Of all that is allowed: what the fp32 model's answers on the calibration and the held-out set may take. Of a slow
model fewer slices judge, never fewer than ``LEAST_HELD_OUT``."""

MOST_AT_A_TIME = 8
"""Slices, each of which needs memory for its activations."""


@dataclass(frozen=True)
class Comparison:
    """How a variant compares with the fp32 model on one set of slices."""

    slices: int

    agreement_at_threshold: float
    """Share of slices with the same label, of however many, at the model's threshold."""

    agreement_at_half: float
    """The same at 0.5."""

    mean_difference: float
    """Mean of ``server.models.agreement.find_differences``."""

    largest_difference: float

    auc_drop: float | None
    """AUC of the fp32 model less that of the variant, of the positive labels against the others; of more than two
    labels the largest drop, of each label against the others as well. None without labels or with one class only."""

    def list_failures(self) -> list[str]:
        """What fails the gate, in words; empty when it passes. So written that NaN fails."""
        failures = []
        for name, share in (("threshold", self.agreement_at_threshold), ("0.5", self.agreement_at_half)):
            if not is_alike(share, self.slices):
                failures.append(f"label agreement at {name} {share:.2%} (at least {LEAST_AGREEMENT:.1%})")
        return [*failures, *self.list_distances()]

    def list_distances(self) -> list[str]:
        """What fails of the probabilities themselves, whatever labels become of them."""
        failures = []
        if not self.mean_difference <= MOST_MEAN_DIFFERENCE:
            failures.append(f"mean |Δp| {self.mean_difference:.4f} (at most {MOST_MEAN_DIFFERENCE})")
        if self.auc_drop is not None and not self.auc_drop <= MOST_AUC_DROP:
            failures.append(f"AUC drop {self.auc_drop:.4f} (at most {MOST_AUC_DROP})")
        return failures


@dataclass(frozen=True)
class Gate:
    """The figures of both sets."""

    calibration: Comparison
    held_out: Comparison

    def list_failures(self) -> list[str]:
        """What fails on either set, in words."""
        return [
            f"{failure} on the {name} set"
            for name, comparison in (("calibration", self.calibration), ("held-out", self.held_out))
            for failure in comparison.list_failures()
        ]

    def to_document(self) -> Mapping[str, object]:
        """For ``manifest.json``."""
        return asdict(self)


class Judge:
    """Compares variants with one fp32 model, whose answers it asks for once.

    Variants are chosen on the calibration set; the held-out one says whether what was chosen passes.
    """

    def __init__(self, reference: OnnxModel, sets: CalibrationSets, watch: Watch) -> None:
        """Asks the model, for as many slices of each set as ``SHARES_OF_TIME`` allow.

        Raises:
            TimeIsUp: between two slices.
        """
        self._spec, self._watch = reference.spec, watch
        self._seconds = measure_seconds(reference, sets.calibration.pixels[0]) if math.isfinite(watch.minutes) else 0.0
        self._sets = [
            take_evenly(slices, self.count_affordable(share, least=LEAST_HELD_OUT, most=len(slices.pixels)))
            for slices, share in zip((sets.calibration, sets.held_out), SHARES_OF_TIME, strict=True)
        ]
        self._answers = [self._answer(reference, slices, "asking the fp32 model") for slices in self._sets]

    def count_affordable(self, share: float, *, least: int, most: int) -> int:
        """How many slices the fp32 model answers in a share of all the time."""
        affordable = share * 60 * self._watch.minutes / self._seconds if self._seconds else math.inf
        return most if affordable >= most else max(min(least, most), int(affordable))

    def compare(self, variant: OnnxModel) -> Gate:
        """The gate's figures of a variant."""
        return Gate(self.compare_calibration(variant), self.compare_held_out(variant))

    def compare_calibration(self, variant: OnnxModel) -> Comparison:
        """Those of the set on which variants are chosen."""
        return self._compare(variant, 0, "comparing answers on slices of the calibration")

    def compare_held_out(self, variant: OnnxModel) -> Comparison:
        """Those of the set that judges what was chosen."""
        return self._compare(variant, 1, "judging on held-out slices")

    def answer_calibration(self, variant: OnnxModel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities of the fp32 model and of a variant on that set, float32 [N, labels] each."""
        return self._answers[0], self._answer(variant, self._sets[0], "asking INT8 how far it is from fp32")

    def _answer(self, model: OnnxModel, slices: Slices, step: str) -> NDArray[np.float32]:
        """Probabilities, float32 [N, labels], as the server asks for them: one slice at a time."""
        with ThreadPoolExecutor(min(count_processors(), MOST_AT_A_TIME)) as pool:
            answers = pool.map(model.run, slices.pixels[:, np.newaxis])
            try:
                return np.concatenate(list(self._watch.track(answers, len(slices.pixels), step)))
            except TimeIsUp:
                pool.shutdown(cancel_futures=True)
                raise

    def _compare(self, variant: OnnxModel, number: int, step: str) -> Comparison:
        slices, answers = self._sets[number], self._answers[number]
        others = self._answer(variant, slices, step)
        difference = find_differences(self._spec, answers, others)
        sets = list_sets(self._spec)
        before, after = (add_probabilities(one, sets) for one in (answers, others))
        return Comparison(
            slices=len(answers),
            agreement_at_threshold=share_labels(self._spec, answers, others, self._spec.threshold),
            agreement_at_half=share_labels(self._spec, answers, others, 0.5),
            mean_difference=float(difference.mean()),
            largest_difference=float(difference.max()),
            auc_drop=find_drop(before, after, slices.classes, sets),
        )


def find_drop(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    classes: NDArray[np.int64] | None,
    sets: Sequence[tuple[int, ...]],
) -> float | None:
    """The largest drop of an AUC; see ``Comparison.auc_drop``."""
    if classes is None:
        return None
    drops = []
    for column, those in enumerate(sets):
        is_of = np.isin(classes, those)
        if 0 < is_of.sum() < len(is_of):
            drops.append(roc_auc_score(is_of, before[:, column]) - roc_auc_score(is_of, after[:, column]))
    return float(max(drops)) if drops else None


def measure_seconds(model: OnnxModel, image: NDArray[np.uint8]) -> float:
    """How long a slice takes where all processors are at work; the first run, which makes room, is not counted."""
    model.run(image[np.newaxis])
    started = time.monotonic()
    model.run(image[np.newaxis])
    return (time.monotonic() - started) / min(count_processors(), MOST_AT_A_TIME)


def take_evenly(slices: Slices, most: int) -> Slices:
    """At most so many of the slices, evenly spread, and so of every class."""
    if len(slices.pixels) <= most:
        return slices
    places = spread_evenly(len(slices.pixels), most)
    return Slices(slices.pixels[places], None if slices.classes is None else slices.classes[places])
