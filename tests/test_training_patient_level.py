"""One score for a person, from the scores of the slices."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.patient_level import choose_top_k, find_positive_patients, measure_auc_error, score_patients
from training.evaluation.ranking import compute_auc

GROUPS = np.array([0, 1, 0, 1, 0, 2])
SCORES = np.array([0.2, 0.9, 0.8, 0.1, 0.6, 0.5])


@pytest.mark.parametrize(("top_k", "scores"), [(1, [0.8, 0.9, 0.5]), (2, [0.7, 0.5, 0.5]), (10, [1.6 / 3, 0.5, 0.5])])
def test_score_is_the_mean_of_the_highest(top_k: int, scores: list[float]) -> None:
    """Of people with fewer slices all count."""
    assert score_patients(SCORES, GROUPS, top_k) == pytest.approx(scores)


def test_person_is_positive_when_any_slice_is() -> None:
    """One bleeding slice makes a bleeding person."""
    positive = np.array([False, False, True, False, False, False])
    assert find_positive_patients(positive, GROUPS).tolist() == [True, False, False]


def test_most_telling_number_of_slices_is_chosen() -> None:
    """Where healthy people have one high slice by chance, a mean over more slices tells better."""
    healthy, ill = [0.9, 0.1, 0.1], [0.8, 0.7, 0.1]
    scores, groups = np.array((healthy + ill) * 3), np.repeat(np.arange(6), 3)
    assert choose_top_k(scores, groups % 2 == 1, groups) == 2


def test_what_may_be_chance_goes_to_the_smaller_number() -> None:
    """One slice it is where two are better by less than the standard error of their AUC: 14 of 16 pairs, and 15."""
    healthy, ill = [0.1, 0.1, 0.2, 0.2, 0.6, 0.0, 0.75, 0.75], [0.5, 0.5, 0.7, 0.9, 0.8, 0.9, 0.9, 0.9]
    scores, groups = np.array(healthy + ill), np.repeat(np.arange(8), 2)
    labels = np.arange(8) >= 4
    assert [compute_auc(score_patients(scores, groups, k), labels) for k in (1, 2)] == [14 / 16, 15 / 16]
    assert choose_top_k(scores, groups >= 4, groups) == 1


def test_error_of_an_auc_by_chance_is_that_of_its_rank_test() -> None:
    """At 0.5 Hanley and McNeil's is Mann and Whitney's, (m + n + 1) / 12 m n; an AUC of 1 has none."""
    assert measure_auc_error(0.5, 7, 10) == pytest.approx((18 / (12 * 70)) ** 0.5)
    assert measure_auc_error(1.0, 5, 5) == 0


def test_equals_go_to_the_smaller_number() -> None:
    """Where the number makes no difference, one slice it is; also where there is only one class."""
    scores, groups = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    assert choose_top_k(scores, groups == 1, groups) == 1
    assert choose_top_k(scores, np.ones(4, bool), groups) == 1
