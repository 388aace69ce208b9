"""Calibration error, reliability, and the temperature that goes into the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from training.evaluation.calibration import (
    BINS,
    TEMPERATURES,
    apply_temperature,
    bin_reliability,
    calibrate,
    compute_calibration_error,
    compute_loss,
    fit_temperature,
    soften,
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
    temperature = fit_temperature(probabilities, targets)
    softened = soften(probabilities, temperature)
    assert temperature == pytest.approx(3.0, rel=0.1)
    positive = targets == 1
    before = compute_calibration_error(probabilities[:, 1].astype(np.float64), positive)
    assert compute_calibration_error(softened[:, 1], positive) < before / 3
    assert compute_loss(softened, targets) < compute_loss(probabilities, targets)
    order = np.lexsort((-probabilities[:, 0], probabilities[:, 1]))  # float32 has many ones, but few equal pairs
    assert (np.diff(softened[order, 1]) > -1e-6).all()


def test_certain_answers_keep_their_scores_apart() -> None:
    """Validation images without an error have no best temperature: it stays within bounds."""
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    assert fit_temperature(probabilities, np.array([0, 1])) == pytest.approx(TEMPERATURES[0], rel=0.01)


@pytest.mark.tensorflow
def test_temperature_goes_into_the_saved_network(tmp_path: Path) -> None:
    """What is saved answers softmax(log p / T) of what the network answered before."""
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
    assert abs(calibration.temperature - 1) > 0.05
    assert np.allclose(saved, soften(raw, calibration.temperature), atol=1e-6)
    assert np.allclose(saved, calibration.probabilities, atol=1e-6)


@pytest.mark.tensorflow
def test_temperature_needs_a_softmax_at_the_end() -> None:
    """Where nothing can be folded, nothing is changed silently."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    with pytest.raises(ValueError, match="not Dense with softmax"):
        apply_temperature(model, 2.0)
