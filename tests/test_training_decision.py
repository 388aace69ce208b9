"""Counts at a threshold, predictive values at another prevalence, net benefit, and the rule for a threshold."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from training.errors import TrainingError
from training.evaluation.decision import (
    count_confusion,
    measure_decision,
    restate_values,
    trace_decisions,
    weighted_decision,
)
from training.evaluation.operating_point import choose_threshold, parse_rule


def test_threshold_itself_is_not_positive() -> None:
    """As served: positive where the score exceeds the threshold."""
    confusion = count_confusion(np.array([0.05, 0.06, 0.05, 0.9]), np.array([True, True, False, False]), 0.05)
    assert astuple(confusion) == (1, 1, 1, 1)


def test_weighted_decision_agrees_with_scikit_learn() -> None:
    """With each image once, the resampled figures are scikit-learn's."""
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 10, 200) / 10, rng.random(200) < 0.3
    values = measure_decision(scores, positive, 0.4)
    for name, figure in weighted_decision(scores, positive, 0.4).items():
        assert figure(np.ones((1, 200)))[0] == pytest.approx(values[name]), name


def test_share_of_nothing_is_not_defined() -> None:
    """Where nothing is called positive there is no PPV, and no warning."""
    values = measure_decision(np.array([0.1, 0.2]), np.array([True, False]), 0.5)
    assert np.isnan(values["ppv"])
    assert values["npv"] == 0.5


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "prevalence", "ppv"),
    [(0.95, 0.95, 0.38, 0.92), (0.95, 0.95, 0.027, 0.35), (0.99, 0.6, 0.147, 0.30), (0.99, 0.6, 0.027, 0.06)],
)
def test_ppv_falls_with_prevalence(sensitivity: float, specificity: float, prevalence: float, ppv: float) -> None:
    """The same test that is right nine times in ten at 38 % is wrong two times in three at 2.7 %."""
    found, _ = restate_values(np.array([sensitivity]), np.array([specificity]), prevalence)
    assert found[0] == pytest.approx(ppv, abs=0.006)


def test_restated_values_by_hand() -> None:
    """Of 1,000 people, 100 ill: 80 found, 20 missed; of 900 well, 90 alarmed, 810 cleared."""
    ppv, npv = restate_values(np.array([0.8]), np.array([0.9]), 0.1)
    assert ppv[0] == pytest.approx(80 / 170)
    assert npv[0] == pytest.approx(810 / 830)


def test_net_benefit_by_hand() -> None:
    """At 0.2 a false alarm costs a quarter of a hit: (2 - 1 / 4) / 4; treating everyone (2 - 2 / 4) / 4."""
    curve = trace_decisions(np.array([0.9, 0.3, 0.5, 0.2]), np.array([True, True, False, False]))
    at = int(np.flatnonzero(curve.thresholds == 0.2)[0])
    assert curve.model[at] == pytest.approx((2 - 1 / 4) / 4)
    assert curve.all_positive[at] == pytest.approx((2 - 2 / 4) / 4)


SCORES = np.array([0.1, 0.2, 0.4, 0.3, 0.6, 0.8])
POSITIVE = np.array([False, False, False, True, True, True])


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [("paper", 0.05), ("0.3", 0.3), ("sensitivity=1", 0.25), ("sensitivity=0.66", 0.5), ("youden", 0.25)],
)
def test_rule_chooses(rule: str, threshold: float) -> None:
    """A number stands for itself; the others lie midway between neighbouring scores of validation images."""
    assert choose_threshold(rule, SCORES, POSITIVE) == pytest.approx(threshold)


def test_wanted_sensitivity_is_reached() -> None:
    """On the images that it was chosen on, the share is reached, and the next higher threshold misses it."""
    rng = np.random.default_rng(0)
    scores, positive = rng.random(300).round(2), rng.random(300) < 0.4
    threshold = choose_threshold("sensitivity=0.9", scores, positive)
    assert (scores[positive] > threshold).mean() >= 0.9
    assert (scores[positive] > threshold + 0.01).mean() < 0.9


def test_wanted_specificity_is_kept() -> None:
    """The share is kept, by the smallest threshold that does; a share out of reach calls nobody."""
    rng = np.random.default_rng(0)
    scores, positive = rng.random(300).round(2), rng.random(300) < 0.4
    threshold = choose_threshold("specificity=0.9", scores, positive)
    assert (scores[~positive] <= threshold).mean() >= 0.9
    assert (scores[~positive] <= threshold - 0.01).mean() < 0.9
    alike = np.array([0.7, 0.7, 0.2]), np.array([True, False, False])
    assert choose_threshold("specificity=1", *alike) == 0.7


def test_sensitivity_out_of_reach_calls_whatever_can_be_called() -> None:
    """A positive image with a score of exactly 0 exceeds no threshold; 0 finds all others."""
    scores, positive = np.array([0.0, 0.5, 0.0]), np.array([True, True, False])
    assert choose_threshold("sensitivity=1", scores, positive) == 0.0


@pytest.mark.parametrize("rule", ["", "sensitivity", "sensitivity=0", "sensitivity=2", "youden=1", "1.5", "nan"])
def test_rule_that_means_nothing_is_refused(rule: str) -> None:
    """The line names the flag and what it takes."""
    with pytest.raises(TrainingError, match=r"--operating-point .* is not paper, youden"):
        parse_rule(rule)
