"""Whether a probability means what it says: calibration error, reliability, and the scaling that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from training.evaluation.bootstrap import Statistic, divide, wilson_interval
from training.evaluation.figures import Bools, Floats, Reliability

if TYPE_CHECKING:
    import keras

BINS = 15
"""Bins of equal width over [0, 1], as usual for the expected calibration error (Guo et al. 2017, 3)."""

TEMPERATURES = (0.25, 20.0)
"""Bounds of the fit. Validation images that are told apart without an error have no best temperature: the colder, the
likelier; the lower bound keeps such a network from answering 0 and 1 only."""

MOST_SHIFT = 10.0
"""Of a class, either way: odds that are 22,000 times others."""

RIDGE = 1e-4
"""What a shift costs, times its square, in nats: so little that it matters only where images are told apart without an
error, and any shift would do."""

SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Scaling:
    """What makes softmax(z / temperature + shift) of a network's logits z."""

    temperature: float
    shift: Floats
    """[C], of each class; their sum is 0."""

    def apply(self, probabilities: NDArray[np.floating]) -> Floats:
        """Returns what a network that answers ``probabilities`` [N, C] answers with it, [N, C]."""
        scaled: Floats = softmax(take_logits(probabilities) / self.temperature + self.shift, axis=1)
        return scaled

    def describe_shift(self, labels: Sequence[str]) -> str:
        """``normal +0.652, stroke -0.652``."""
        return ", ".join(f"{label} {shift:+.3f}" for label, shift in zip(labels, self.shift, strict=True))


@dataclass(frozen=True)
class Calibration:
    """A scaling, and what the network answers on the validation images once it is applied."""

    scaling: Scaling
    probabilities: Floats
    """[N, C]."""


def take_logits(probabilities: NDArray[np.floating]) -> Floats:
    """Returns logits [N, C] of these probabilities: the network's own but for a number that is the same in a row."""
    logits: Floats = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY))
    return logits


def find_bins(scores: Floats) -> NDArray[np.int64]:
    """Returns the bin of each score, 0 to 14; a score on an edge belongs to the lower bin."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], scores, side="left").astype(np.int64)


def weighted_calibration_error(scores: Floats, positive: Bools) -> Statistic:
    """Returns the expected calibration error as a function of resample weights.

    It is the mean over the images of the distance between the mean score of an image's bin and the share of positive
    images in it (Naeini et al. 2015), for the probability of the positive label.
    """
    members = np.eye(BINS)[find_bins(scores)]
    gaps = members * (scores - positive)[:, np.newaxis]
    return lambda weights: divide(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def compute_calibration_error(scores: Floats, positive: Bools) -> float:
    """Returns the expected calibration error, in [0, 1]; see ``weighted_calibration_error``."""
    return float(weighted_calibration_error(scores, positive)(np.ones((1, len(scores))))[0])


def bin_reliability(scores: Floats, positive: Bools) -> Reliability:
    """Returns predicted against observed by bin, with Wilson's intervals of what is observed."""
    bins = find_bins(scores)
    counts = np.bincount(bins, minlength=BINS)
    hits = np.bincount(bins[positive], minlength=BINS)
    intervals = [
        wilson_interval(int(hit), int(count)) if count else (np.nan, np.nan)
        for hit, count in zip(hits, counts, strict=True)
    ]
    return Reliability(
        predicted=divide(np.bincount(bins, scores, minlength=BINS).astype(np.float64), counts.astype(np.float64)),
        observed=divide(hits.astype(np.float64), counts.astype(np.float64)),
        low=np.array([low for low, _ in intervals]),
        high=np.array([high for _, high in intervals]),
        counts=counts.astype(np.int64),
    )


def compute_loss(probabilities: NDArray[np.floating], targets: NDArray[np.int64]) -> float:
    """Returns the mean negative log-likelihood of the classes ``targets`` [N], in nats."""
    of_target = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(np.maximum(of_target, SMALLEST_PROBABILITY)).mean())


def fit_scaling(probabilities: NDArray[np.floating], targets: NDArray[np.int64]) -> Scaling:
    """Returns the scaling with the lowest negative log-likelihood: a temperature (Guo et al. 2017, 4.2) and a shift of
    each class, as Alexandari et al. 2020 add to it; of two classes that is Platt's.

    The temperature says how sure a network may be. It cannot say how frequent a class is, which a network does not know
    that was taught with balanced classes or elsewhere: that is in the shift.

    Args:
        probabilities: [N, C], softmax output on validation images; above a temperature of 1 it was too sure of itself.
        targets: [N], classes of these images. Where a class is missing, nothing is shifted.
    """
    logits, classes = take_logits(probabilities), probabilities.shape[1]
    wanted = np.eye(classes)[targets]

    def measure(values: Floats) -> tuple[float, Floats]:
        """The loss and its gradient by 1 / T and the shifts: convex."""
        slope, shift = values[0], values[1:]
        scaled = log_softmax(slope * logits + shift, axis=1)
        missed = (np.exp(scaled) - wanted) / len(targets)
        loss = -(wanted * scaled).sum() / len(targets) + RIDGE * (shift @ shift)
        return float(loss), np.array([(missed * logits).sum(), *(missed.sum(axis=0) + 2 * RIDGE * shift)])

    limit = MOST_SHIFT if len(np.unique(targets)) == classes else 0.0
    found = minimize(
        measure,
        np.array([1.0, *np.zeros(classes)]),
        jac=True,
        bounds=[(1 / TEMPERATURES[1], 1 / TEMPERATURES[0]), *[(-limit, limit)] * classes],
        method="L-BFGS-B",
    )
    return Scaling(float(1 / found.x[0]), found.x[1:] - found.x[1:].mean())


def calibrate(model: keras.Model, probabilities: NDArray[np.floating], targets: NDArray[np.int64]) -> Calibration:
    """Fits a scaling to the answers on validation images and puts it into the network.

    Of two classes the order of the answers stays, and with it the AUC; what changes is how sure they are.

    Args:
        model: network that gave the answers; its last layer is changed (``apply_scaling``).
        probabilities: [N, C], its answers on the validation images.
        targets: [N], their classes.
    """
    scaling = fit_scaling(probabilities, targets)
    apply_scaling(model, scaling)
    return Calibration(scaling, scaling.apply(probabilities))


def apply_scaling(model: keras.Model, scaling: Scaling) -> None:
    """Scales the logits of a network, in place, so that it answers softmax(z / T + shift).

    It is folded into kernel and bias of the last layer: what is saved and exported is calibrated, at no cost.

    Args:
        model: network whose last layer is Dense with softmax, with a bias.
        scaling: for as many classes as it has.

    Raises:
        ValueError: it ends otherwise, so that nothing can be folded.
    """
    last = model.layers[-1]
    is_softmax = getattr(getattr(last, "activation", None), "__name__", "") == "softmax"
    if not is_softmax or not getattr(last, "use_bias", False) or not hasattr(last, "kernel"):
        raise ValueError(f"the last layer of {model.name} is not Dense with softmax and a bias")
    kernel, bias = last.get_weights()
    last.set_weights([kernel / scaling.temperature, bias / scaling.temperature + scaling.shift])
