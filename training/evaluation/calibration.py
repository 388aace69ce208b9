"""Whether a probability means what it says: calibration error, reliability, and the temperature that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from training.evaluation.bootstrap import Statistic, divide, wilson_interval
from training.evaluation.figures import Bools, Floats, Reliability

if TYPE_CHECKING:
    import keras

BINS = 15
"""Bins of equal width over [0, 1], as usual for the expected calibration error (Guo et al. 2017, 3)."""

TEMPERATURES = (0.25, 20.0)
"""Bounds of the fit. Validation images that are told apart without an error have no best temperature: the colder, the
likelier; the lower bound keeps such a network from answering 0 and 1 only."""

SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what the network answers on the validation images once it is applied."""

    temperature: float
    probabilities: Floats
    """[N, C]."""


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


def soften(probabilities: NDArray[np.floating], temperature: float) -> Floats:
    """Returns softmax(log p / T), [N, C]: what the network answers with its logits divided by T."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY)) / temperature
    softened: Floats = softmax(logits, axis=1)
    return softened


def compute_loss(probabilities: NDArray[np.floating], targets: NDArray[np.int64]) -> float:
    """Returns the mean negative log-likelihood of the classes ``targets`` [N], in nats."""
    of_target = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(np.maximum(of_target, SMALLEST_PROBABILITY)).mean())


def fit_temperature(probabilities: NDArray[np.floating], targets: NDArray[np.int64]) -> float:
    """Returns the temperature in ``TEMPERATURES`` with the lowest negative log-likelihood (Guo et al. 2017, 4.2).

    Args:
        probabilities: [N, C], softmax output on validation images; above 1 it was too sure of itself.
        targets: [N], classes of these images.
    """
    found = minimize_scalar(
        lambda log_temperature: compute_loss(soften(probabilities, np.exp(log_temperature)), targets),
        bounds=np.log(TEMPERATURES),
        method="bounded",
    )
    return float(np.exp(found.x))


def calibrate(model: keras.Model, probabilities: NDArray[np.floating], targets: NDArray[np.int64]) -> Calibration:
    """Fits a temperature to the answers on validation images and puts it into the network.

    The order of the answers stays, and with it the AUC; what changes is how sure they are.

    Args:
        model: network that gave the answers; its last layer is changed (``apply_temperature``).
        probabilities: [N, C], its answers on the validation images.
        targets: [N], their classes.
    """
    temperature = fit_temperature(probabilities, targets)
    apply_temperature(model, temperature)
    return Calibration(temperature, soften(probabilities, temperature))


def apply_temperature(model: keras.Model, temperature: float) -> None:
    """Divides the logits of a network by a temperature, in place, so that it answers softmax(z / T).

    It is folded into kernel and bias of the last layer: what is saved and exported is calibrated, at no cost.

    Args:
        model: network whose last layer is Dense with softmax.
        temperature: positive.

    Raises:
        ValueError: it ends otherwise, so that nothing can be folded.
    """
    last = model.layers[-1]
    if getattr(getattr(last, "activation", None), "__name__", "") != "softmax" or not hasattr(last, "kernel"):
        raise ValueError(f"the last layer of {model.name} is not Dense with softmax")
    last.set_weights([weight / temperature for weight in last.get_weights()])
