"""Calibration error, reliability, and the scaling that goes into the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from training.evaluation.calibration import (
    BINS,
    TEMPERATURES,
    Scaling,
    apply_scaling,
    bin_reliability,
    calibrate,
    compute_calibration_error,
    compute_loss,
    fit_scaling,
)


def make_overconfident(temperature: float = 3.0, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Answers whose logits are so many times too large: [N, 2], and the classes."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, count)
    targets = (rng.random(count) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    sure = 1 / (1 + np.exp(-temperature * logits))
    return np.stack([1 - sure, sure], axis=1).astype(np.float32), targets


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.25 on average with none positive, 0.95 with half: (2 x 0.25 + 2 x 0.45) / 4."""
    scores, positive = np.array([0.24, 0.26, 0.95, 0.95]), np.array([False, False, True, False])
    assert compute_calibration_error(scores, positive) == pytest.approx((2 * 0.25 + 2 * 0.45) / 4)


def test_reliability_agrees_with_scikit_learn() -> None:
    """Bins, means and shares are scikit-learn's, also for scores on an edge; Wilson's interval holds each share."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(300), np.arange(BINS + 1) / BINS])
    positive = rng.random(len(scores)) < scores
    bins = bin_reliability(scores, positive)
    observed, predicted = calibration_curve(positive, scores, n_bins=BINS)
    assert bins.observed == pytest.approx(observed)
    assert bins.predicted == pytest.approx(predicted)
    assert bins.counts.sum() == len(scores)
    assert (bins.low <= bins.observed).all()
    assert (bins.observed <= bins.high).all()


def test_empty_bins_have_no_share() -> None:
    """A bin without images is NaN, without a warning."""
    bins = bin_reliability(np.array([0.01, 0.99]), np.array([False, True]))
    assert np.isnan(bins.observed[1:-1]).all()
    assert bins.counts.tolist() == [1, *[0] * (BINS - 2), 1]


def test_temperature_mends_overconfidence() -> None:
    """The temperature is found; with it calibration error and likelihood are better and the order is the same."""
    probabilities, targets = make_overconfident(3.0)
    scaling = fit_scaling(probabilities, targets)
    softened = scaling.apply(probabilities)
    assert scaling.temperature == pytest.approx(3.0, rel=0.1)
    assert scaling.shift == pytest.approx(0, abs=0.05)
    positive = targets == 1
    before = compute_calibration_error(probabilities[:, 1].astype(np.float64), positive)
    assert compute_calibration_error(softened[:, 1], positive) < before / 3
    assert compute_loss(softened, targets) < compute_loss(probabilities, targets)
    order = np.lexsort((-probabilities[:, 0], probabilities[:, 1]))  # float32 has many ones, but few equal pairs
    assert (np.diff(softened[order, 1]) > -1e-6).all()


def test_certain_answers_keep_their_scores_apart() -> None:
    """Validation images without an error have no best temperature: it stays within bounds."""
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    scaling = fit_scaling(probabilities, np.array([0, 1]))
    assert scaling.temperature == pytest.approx(TEMPERATURES[0], rel=0.01)
    assert scaling.shift == pytest.approx(0, abs=2)


def test_shift_mends_a_share_of_positive_images_that_the_network_does_not_know() -> None:
    """A network taught with as many of each, where one in six is positive: a temperature alone leaves it far too sure.
    The shift is what the odds differ by, and the likelihood is that of the best fit of scikit-learn."""
    rng = np.random.default_rng(3)
    logits, chance = rng.normal(0, 1.5, 6000), np.log(1 / 5)
    targets = (rng.random(6000) < expit(logits + chance)).astype(np.int64)
    probabilities = np.stack([expit(-logits), expit(logits)], axis=1)

    scaling = fit_scaling(probabilities, targets)

    assert scaling.shift.sum() == pytest.approx(0, abs=1e-6)
    assert scaling.shift[1] - scaling.shift[0] == pytest.approx(chance, abs=0.15)
    error = compute_calibration_error(probabilities[:, 1], targets == 1)
    assert error > 0.2
    assert compute_calibration_error(scaling.apply(probabilities)[:, 1], targets == 1) < 0.02
    platt = LogisticRegression(C=np.inf).fit(logits[:, np.newaxis], targets).predict_proba(logits[:, np.newaxis])
    assert compute_loss(scaling.apply(probabilities), targets) == pytest.approx(log_loss(targets, platt), abs=1e-3)


def test_nothing_is_shifted_where_a_class_is_missing() -> None:
    """Of its frequency such images say nothing."""
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1]])
    assert fit_scaling(probabilities, np.array([0, 1, 1])).shift.tolist() == [0, 0, 0]


@pytest.mark.tensorflow
def test_scaling_goes_into_the_saved_network(tmp_path: Path) -> None:
    """What is saved answers softmax(log p / T + shift) of what the network answered before."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax", name="probabilities")]
    )
    images = np.random.default_rng(0).normal(0, 3, (50, 4)).astype(np.float32)
    raw = model.predict_on_batch(images)
    targets = np.random.default_rng(1).integers(0, 2, 50)
    calibration = calibrate(model, raw, targets)
    model.save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras", compile=False).predict_on_batch(images)
    assert abs(calibration.scaling.temperature - 1) > 0.05
    assert abs(calibration.scaling.shift[0]) > 0.05
    assert np.allclose(saved, calibration.scaling.apply(raw), atol=1e-6)
    assert np.allclose(saved, calibration.probabilities, atol=1e-6)


@pytest.mark.tensorflow
def test_scaling_needs_a_softmax_at_the_end() -> None:
    """Where nothing can be folded, nothing is changed silently."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    with pytest.raises(ValueError, match="not Dense with softmax"):
        apply_scaling(model, Scaling(2.0, np.zeros(1)))
