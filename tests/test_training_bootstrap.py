"""Intervals: they cover the truth as often as they say, and count people."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.bootstrap import Ratio, Statistic, bootstrap_intervals, wilson_interval
from training.evaluation.ranking import weighted_auc


def bootstrap_interval(statistic: Statistic, people: np.ndarray, **options: int) -> tuple[float, float]:
    """The interval of one figure."""
    low, high = bootstrap_intervals({"figure": statistic}, people, **options)["figure"]
    return float(low), float(high)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 intervals of a mean, about 95 % hold it."""
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        share = Ratio(rng.random(150) < 0.3, np.ones(150, bool))
        low, high = bootstrap_interval(share, np.arange(150), resamples=400, seed=seed)
        held += low <= 0.3 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_bootstrap_by_group_is_wider() -> None:
    """Ten like slices of a person are one person: the interval must not pretend that they are ten."""
    rng = np.random.default_rng(2)
    people = np.repeat(np.arange(40), 10)
    positive = people % 2 == 0
    scores = np.repeat(rng.normal(size=40), 10) + positive
    by_image = bootstrap_interval(weighted_auc(scores, positive), np.arange(400))
    by_person = bootstrap_interval(weighted_auc(scores, positive), people)
    assert by_person[1] - by_person[0] > 2 * (by_image[1] - by_image[0])


def test_bootstrap_is_seeded() -> None:
    """The same seed gives the same interval, another seed another one."""
    share = Ratio(np.arange(50) / 49, np.ones(50))
    first, again, other = (bootstrap_interval(share, np.arange(50), seed=seed) for seed in (5, 5, 6))
    assert first == again != other


def test_ratio_by_person_is_that_by_image() -> None:
    """Adding up people is the same as adding up images, only faster."""
    rng = np.random.default_rng(3)
    groups, hits = rng.integers(0, 20, 200), rng.random(200) < 0.4
    ratio = Ratio(hits, np.ones(200))
    ends = bootstrap_intervals({"people": ratio, "images": lambda weights: ratio(weights)}, groups, resamples=50)
    assert ends["people"] == pytest.approx(ends["images"])


def test_resamples_are_drawn_in_bounded_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many resamples, a weight matrix has a bounded number of elements; none is lost."""
    monkeypatch.setattr("training.evaluation.bootstrap.CHUNK_ELEMENTS", 1000)
    rows = []
    bootstrap_interval(lambda weights: rows.append(len(weights)) or weights[:, 0], np.arange(100), resamples=95)
    assert max(rows) * 100 <= 1000
    assert sum(rows) == 95


def test_what_is_never_defined_has_no_interval() -> None:
    """A share of nothing is NaN, without a warning."""
    ends = bootstrap_interval(Ratio(np.zeros(5), np.zeros(5)), np.arange(5), resamples=10)
    assert np.isnan(ends).all()


@pytest.mark.parametrize(("count", "low"), [(31, 0.890), (6, 0.610)])
def test_wilson_interval_of_all_successes(count: int, low: float) -> None:
    """Even 31 of 31 leave the lower bound at 0.89, as published tables say."""
    assert wilson_interval(count, count) == (pytest.approx(low, abs=5e-4), 1.0)
