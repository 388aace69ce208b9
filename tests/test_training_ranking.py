"""AUC, average precision and curves: as scikit-learn has them, also where scores are tied, and for resamples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from training.evaluation.ranking import (
    GRID,
    compute_auc,
    compute_average_precision,
    compute_matched_auc,
    compute_specificity_at,
    trace_precision_recall,
    trace_roc,
    weighted_auc,
    weighted_curves,
    weighted_specificity_at,
)


@pytest.fixture(params=["tied", "different", "two values"])
def answers(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Random scores and labels."""
    rng = np.random.default_rng(0)
    positive = rng.random(80) < 0.4
    scores = {
        "tied": rng.integers(0, 6, 80) / 5,
        "different": rng.random(80),
        "two values": rng.integers(0, 2, 80) * 1.0,
    }
    return scores[request.param], positive


def test_auc_counts_ties_half(answers: tuple[np.ndarray, np.ndarray]) -> None:
    """The AUC is the share of ordered pairs, by its definition, by scikit-learn, and by our weighted one."""
    scores, positive = answers
    pairs = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    assert compute_auc(scores, positive) == pytest.approx(float(np.mean(pairs)))
    assert weighted_auc(scores, positive)(np.ones((1, 80)))[0] == pytest.approx(float(np.mean(pairs)))


def test_weighted_figures_are_those_of_repeated_images(answers: tuple[np.ndarray, np.ndarray]) -> None:
    """A weight of 3 is the same as the image three times, for AUC, average precision and both curves."""
    scores, positive = answers
    times = np.random.default_rng(1).integers(0, 4, (5, 80))
    aucs, rows = weighted_auc(scores, positive)(times * 1.0), weighted_curves(scores, positive)(times * 1.0)
    for weights, auc, row in zip(times, aucs, rows, strict=True):
        repeated, labels = np.repeat(scores, weights), np.repeat(positive, weights)
        assert auc == pytest.approx(roc_auc_score(labels, repeated))
        assert row[0] == pytest.approx(average_precision_score(labels, repeated))
        assert row[1 : 1 + len(GRID)] == pytest.approx(trace_roc(repeated, labels))
        assert row[1 + len(GRID) :] == pytest.approx(trace_precision_recall(repeated, labels))


def test_specificity_at_a_sensitivity_is_the_best_that_a_threshold_offers(
    answers: tuple[np.ndarray, np.ndarray],
) -> None:
    """By its definition, over all thresholds; a weight of 3 is the same as the image three times."""
    scores, positive = answers
    times = np.random.default_rng(1).integers(0, 4, (5, 80))
    for weights, found in zip(times, weighted_specificity_at(scores, positive)(times * 1.0), strict=True):
        repeated, labels = np.repeat(scores, weights), np.repeat(positive, weights)
        offered = [
            (repeated[~labels] < cut).mean() for cut in scores if (repeated[labels] >= cut).mean() >= 0.95 - 1e-9
        ]
        assert found == pytest.approx(max(offered))
    assert compute_specificity_at(scores, positive) == weighted_specificity_at(scores, positive)(np.ones((1, 80)))[0]


def test_curves_by_hand() -> None:
    """Of +, -, + in falling order: half the positives before any alarm, the rest after it."""
    scores, positive = np.array([0.9, 0.5, 0.1]), np.array([True, False, True])
    roc, precision = trace_roc(scores, positive), trace_precision_recall(scores, positive)
    assert (roc[0], roc[50], roc[-1]) == (0.5, 0.5, 1.0)
    assert (precision[0], precision[50], precision[51], precision[-1]) == pytest.approx((1, 1, 2 / 3, 2 / 3))


def test_resample_without_a_class_is_left_open() -> None:
    """Where a resample has one class only, what needs both is NaN, without a warning."""
    scores, positive = np.array([0.1, 0.9]), np.array([False, True])
    weights = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert np.isnan(weighted_auc(scores, positive)(weights)).all()
    assert np.isnan(weighted_specificity_at(scores, positive)(weights)).all()
    rows = weighted_curves(scores, positive)(weights)
    assert np.isnan(rows[0]).all()
    assert rows[1, 0] == 1.0


def test_one_class_has_no_auc() -> None:
    """It is NaN rather than an error: a subset may lack a class."""
    assert np.isnan(compute_auc(np.array([0.1, 0.2]), np.array([True, True])))
    assert np.isnan(compute_average_precision(np.array([0.1, 0.2]), np.array([False, False])))


def test_matched_auc_of_the_covariate_itself_is_near_chance() -> None:
    """What only follows the amount of brain has a high AUC, and a matched one that shows that it is nothing."""
    rng = np.random.default_rng(0)
    covariate = rng.random(4000)
    positive = rng.random(4000) < covariate
    assert compute_auc(covariate, positive) > 0.8
    assert compute_matched_auc(covariate, positive, covariate) < 0.6


def test_matched_auc_keeps_what_the_covariate_does_not_explain() -> None:
    """A score that knows more than the covariate keeps its matched AUC."""
    rng = np.random.default_rng(0)
    covariate, positive = rng.random(2000), rng.random(2000) < 0.5
    assert compute_matched_auc(positive + rng.normal(0, 0.5, 2000), positive, covariate) > 0.9
