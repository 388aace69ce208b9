"""The accuracy gate: a quantised model is written only if it decides as the model that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from converter.int8.calibrate import CalibrationSets, Slices
from server.models.runtime import OnnxModel

LEAST_AGREEMENT = 0.995
ONE_LABEL = 1
"""Changed labels that are allowed in any case: of fewer than 200 slices one alone would be more than the share."""

MOST_MEAN_DIFFERENCE = 0.01
MOST_AUC_DROP = 0.005


@dataclass(frozen=True)
class Comparison:
    """How a variant compares with the fp32 model on one set of slices."""

    slices: int

    agreement_at_threshold: float
    """Share of slices with the same label at the model's threshold."""

    agreement_at_half: float
    """The same at 0.5."""

    mean_difference: float
    """Mean absolute difference of the positive label's probability."""

    largest_difference: float

    auc_drop: float | None
    """AUC of the fp32 model less that of the variant; None without labels or with one class only."""

    def list_failures(self) -> list[str]:
        """What fails the gate, in words; empty when it passes. So written that NaN fails."""
        failures = []
        for name, share in (("threshold", self.agreement_at_threshold), ("0.5", self.agreement_at_half)):
            if not (share >= LEAST_AGREEMENT or round((1 - share) * self.slices, 6) <= ONE_LABEL):
                failures.append(f"label agreement at {name} {share:.2%} (at least {LEAST_AGREEMENT:.1%})")
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
    """Compares variants with one fp32 model, whose answers it asks for once."""

    def __init__(self, reference: OnnxModel, sets: CalibrationSets) -> None:
        self._spec = reference.spec
        self._sets = [
            (slices, answer_one_by_one(reference, slices.pixels)) for slices in (sets.calibration, sets.held_out)
        ]

    def compare(self, variant: OnnxModel) -> Gate:
        """The gate's figures of a variant."""
        return Gate(*(self._compare(variant, slices, answers) for slices, answers in self._sets))

    def _compare(self, variant: OnnxModel, slices: Slices, answers: NDArray[np.float32]) -> Comparison:
        index, threshold = self._spec.positive_index, self._spec.threshold
        before = answers[:, index].astype(np.float64)
        after = answer_one_by_one(variant, slices.pixels)[:, index].astype(np.float64)
        difference = np.abs(after - before)
        drop = None
        if slices.positive is not None and 0 < slices.positive.sum() < len(slices.positive):
            drop = float(roc_auc_score(slices.positive, before) - roc_auc_score(slices.positive, after))
        return Comparison(
            slices=len(before),
            agreement_at_threshold=float(((before > threshold) == (after > threshold)).mean()),
            agreement_at_half=float(((before > 0.5) == (after > 0.5)).mean()),
            mean_difference=float(difference.mean()),
            largest_difference=float(difference.max()),
            auc_drop=drop,
        )


def answer_one_by_one(model: OnnxModel, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities, float32 [N, labels], as the server asks for them: one slice at a time."""
    return np.concatenate([model.run(image[np.newaxis]) for image in pixels])
