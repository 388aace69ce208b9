"""Two models on the same images: DeLong's test, intervals of differences over people, changed answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation.delong import compare_aucs, find_components
from training.evaluation.paired import Answered, compare_answers, count_changes, find_p
from training.evaluation.ranking import compute_auc

OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
"""Albumin, total protein, K-G score (a high one is bad) and outcome of 43 women: the example of DeLong, DeLong and
Clarke-Pearson, Biometrics 44 (1988), 837-845."""

PUBLISHED = {
    "albumin": (0.7366, 0.0927),
    "K-G score": (0.7258, 0.1028),
    "total protein": (0.6478, 0.1000),
}
"""AUC and its standard error, and below differences, as the manual of SAS/STAT states them (PROC LOGISTIC, "Comparing
Receiver Operating Characteristic Curves")."""


def read_ovarian() -> tuple[dict[str, np.ndarray], np.ndarray]:
    albumin, protein, score, outcome = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    return {"albumin": albumin, "K-G score": 10 - score, "total protein": protein}, outcome == 1


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_auc_and_error_are_the_published_ones(name: str) -> None:
    """On the data of the paper that the test comes from."""
    tests, positive = read_ovarian()
    parts = find_components(tests[name], positive)
    auc, error = PUBLISHED[name]
    assert parts[0].mean() == pytest.approx(compute_auc(tests[name], positive)) == pytest.approx(auc, abs=5e-5)
    assert parts[1].mean() == pytest.approx(auc, abs=5e-5)
    assert math.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "difference", "error", "p"),
    [("albumin", 0.0108, 0.0953, 0.9102), ("total protein", -0.0780, 0.1046, 0.4561)],
)
def test_differences_are_the_published_ones(name: str, difference: float, error: float, p: float) -> None:
    """Each against the K-G score, with the correlation of both."""
    tests, positive = read_ovarian()
    found = compare_aucs(tests["K-G score"], tests[name], positive)
    assert found.difference.value == pytest.approx(difference, abs=5e-5)
    assert found.error == pytest.approx(error, abs=5e-5)
    assert found.p == pytest.approx(p, abs=5e-5)
    assert found.difference.high - found.difference.low == pytest.approx(2 * 1.959964 * found.error)


def test_components_are_those_of_every_pair() -> None:
    """Midranks are a faster way to the same shares, with ties counted half."""
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 60) / 5, rng.random(60) < 0.4
    wins = np.sign(scores[positive][:, None] - scores[~positive]) / 2 + 0.5
    of_positive, of_negative = find_components(scores, positive)
    assert of_positive == pytest.approx(wins.mean(axis=1))
    assert of_negative == pytest.approx(wins.mean(axis=0))


def test_same_model_is_not_different() -> None:
    """Nothing between them, and no sign of anything."""
    tests, positive = read_ovarian()
    found = compare_aucs(tests["albumin"], tests["albumin"], positive)
    assert (found.difference.value, found.error, found.p) == (0, 0, 1)


def test_one_image_of_a_class_says_nothing() -> None:
    """There is no spread to compare with."""
    found = compare_aucs(np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.2, 0.1]), np.array([True, False, False]))
    assert math.isnan(found.p)


def make_answers(people: int = 80, slices: int = 1, seed: int = 1) -> tuple[Answered, Answered, np.ndarray, np.ndarray]:
    """A weak model and a strong one, whose slices of one person are all alike."""
    rng = np.random.default_rng(seed)
    person = rng.random(people)
    positive = np.arange(people) % 2 == 0
    weak, strong = (np.clip(0.5 * person + gain * positive, 0, 1) for gain in (0.15, 0.35))
    groups = np.repeat(np.arange(people), slices)
    return Answered("A", weak[groups], 0.4), Answered("B", strong[groups], 0.4), positive[groups], groups


def test_bootstrap_and_delong_agree_where_each_person_has_one_image() -> None:
    """Of enough people, about the same interval of the difference."""
    found = compare_answers(*make_answers())
    by_bootstrap, by_delong = found.figures["auc"].difference, found.delong.difference
    assert found.is_independent
    assert by_bootstrap.value == pytest.approx(by_delong.value)
    assert by_bootstrap.low == pytest.approx(by_delong.low, abs=0.02)
    assert by_bootstrap.high == pytest.approx(by_delong.high, abs=0.02)
    assert found.auc_difference == (by_delong, found.delong.p)


def test_more_slices_of_the_same_people_tell_no_more() -> None:
    """The interval over people stays what it is; DeLong's by slice shrinks, and is not the one that counts."""
    one, eight = compare_answers(*make_answers()), compare_answers(*make_answers(slices=8))
    assert eight.figures["auc"].difference.low == pytest.approx(one.figures["auc"].difference.low, abs=1e-9)
    assert eight.delong.error < one.delong.error / 2
    assert not eight.is_independent
    assert eight.auc_difference == (eight.figures["auc"].difference, eight.figures["auc"].p)


def test_pairing_makes_the_interval_narrower() -> None:
    """What makes some people hard for both models cancels out."""
    auc = compare_answers(*make_answers()).figures["auc"]
    assert auc.difference.high - auc.difference.low < auc.first.high - auc.first.low


def test_figures_are_each_models_own() -> None:
    """At its own threshold, and the difference is that of both."""
    weak, strong, positive, groups = make_answers()
    found = compare_answers(weak, strong, positive, groups, covariate=weak.scores)
    sensitivity = found.figures["sensitivity"]
    assert sensitivity.first.value == (weak.scores[positive] > 0.4).mean()
    assert sensitivity.second.value == (strong.scores[positive] > 0.4).mean()
    assert sensitivity.difference.value == sensitivity.second.value - sensitivity.first.value
    assert list(found.figures) == ["auc", "matched_auc", "sensitivity", "specificity", "brier", "ece"]


def test_changed_answers_are_counted() -> None:
    """McNemar's exact test is about them alone: 1 against 9 of 10, whatever stayed."""
    first = np.array([True] * 90 + [False] * 9 + [True])
    second = np.array([True] * 99 + [False])
    found = count_changes(first, second)
    assert (found.both_right, found.only_first_right, found.only_second_right, found.both_wrong) == (90, 1, 9, 0)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)


def test_no_changed_answer_is_no_certainty() -> None:
    """Of 20 people none changed; of the next 20 some may."""
    weak, _, positive, groups = make_answers(40)
    pair = compare_answers(weak, weak, positive, groups).figures["sensitivity"]
    assert (pair.difference.value, pair.p) == (0, 1)
    assert pair.difference.low == pytest.approx(-0.161, abs=0.001)
    assert pair.difference.high == pytest.approx(0.161, abs=0.001)


def test_p_is_never_nothing() -> None:
    """As many resamples as there are cannot show less than one of them."""
    assert find_p(np.full(1999, 0.1)) == 2 / 2000
    assert find_p(np.zeros(100)) == 1
    assert math.isnan(find_p(np.full(3, math.nan)))
