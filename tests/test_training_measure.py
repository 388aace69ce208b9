"""Everything that is measured of a model: each figure by hand on a few answers, intervals over people, what chooses."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.errors import TrainingError
from training.evaluation.figures import Evaluation, Predictions
from training.evaluation.measure import Decision, choose_decision, evaluate
from training.evaluation.nearest import Nearest, evaluate_nearest, score_trivially

SCORES = np.array([0.9, 0.6, 0.3, 0.7, 0.2, 0.1])
POSITIVE = np.array([True, True, True, False, False, False])


def make_predictions(
    scores: np.ndarray = SCORES,
    positive: np.ndarray = POSITIVE,
    groups: np.ndarray | None = None,
    *,
    has_patients: bool = True,
) -> Predictions:
    groups = np.arange(len(scores)) if groups is None else groups
    files = tuple(f"{index}.png" for index in range(len(scores)))
    return Predictions(files, scores, positive, groups, np.linspace(0, 1, len(scores)), has_patients)


def measure(predictions: Predictions, decision: Decision | None = None, **options: object) -> Evaluation:
    return evaluate(predictions, decision or Decision(0.5, "0.5"), model="m", data="d", **options)  # type: ignore[arg-type]


def make_people(people: int = 40, slices: int = 10, seed: int = 2) -> Predictions:
    """People whose slices are all alike: what one slice says, all of them say."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(people), slices)
    positive = groups % 2 == 0
    logits = np.repeat(rng.normal(size=people), slices) + positive
    return make_predictions(1 / (1 + np.exp(-logits)), positive, groups)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auc", 7 / 9),  # of 3 x 3 pairs, (0.6, 0.7) and (0.3, 0.7) are in the wrong order
        ("average_precision", (1 / 1 + 2 / 3 + 3 / 4) / 3),
        ("specificity_at_95", 2 / 3),  # all three are found at 0.3, and one of the others with them
        ("sensitivity", 2 / 3),
        ("specificity", 2 / 3),
        ("ppv", 2 / 3),
        ("npv", 2 / 3),
        ("f1", 2 / 3),
        ("accuracy", 4 / 6),
        ("brier", (0.1**2 + 0.4**2 + 0.7**2 + 0.7**2 + 0.2**2 + 0.1**2) / 6),
        ("ece", (0.1 + 0.4 + 0.7 + 0.7 + 0.2 + 0.1) / 6),
    ],
)
def test_figure_by_hand(name: str, value: float) -> None:
    """Each figure of six answers, at a threshold of 0.5, is what paper and pencil give."""
    assert measure(make_predictions()).slices.figures[name].value == pytest.approx(value)


def test_headline_stands_beside_what_needs_no_model() -> None:
    """Majority, trivial score, nearest neighbour, its leaking figure and the matched AUC are all there."""
    evaluation = measure(make_people(), nearest=Nearest(np.arange(400) % 4 > 0, 0.93), majority_positive=True)
    baselines = evaluation.baselines
    assert baselines.majority_accuracy == 0.5
    assert 0 <= baselines.trivial_auc.low <= baselines.trivial_auc.value <= baselines.trivial_auc.high <= 1
    assert baselines.nearest_accuracy is not None
    assert baselines.nearest_accuracy.value == 0.75
    assert baselines.nearest_random_accuracy == 0.93
    assert "matched_auc" in evaluation.slices.figures


@pytest.mark.parametrize(("majority", "accuracy"), [(None, 4 / 6), (True, 2 / 6), (False, 4 / 6)])
def test_majority_is_that_of_the_training_images(majority: bool | None, accuracy: float) -> None:
    """What is more frequent in training may be rarer here; where that is not known, the images themselves decide."""
    predictions = make_predictions(positive=np.array([True, False, True, False, False, False]))
    assert measure(predictions, majority_positive=majority).baselines.majority_accuracy == pytest.approx(accuracy)


def test_intervals_hold_the_figures() -> None:
    """Low, value and high come in this order for every figure of slices and of people."""
    evaluation = measure(make_people())
    assert evaluation.patients is not None
    for level in (evaluation.slices, evaluation.patients):
        for name, figure in level.figures.items():
            assert figure.low <= figure.value + 1e-12, name
            assert figure.value <= figure.high + 1e-12, name


def test_intervals_over_people_are_wider_than_over_slices() -> None:
    """Ten like slices of a person are one person: no interval may pretend that they are ten."""
    predictions = make_people()
    alone = make_predictions(predictions.scores, predictions.positive)
    by_person, by_slice = measure(predictions).slices.figures, measure(alone).slices.figures
    for name in ("auc", "average_precision", "sensitivity", "specificity", "accuracy", "brier"):
        widths = [figures[name].high - figures[name].low for figures in (by_person, by_slice)]
        assert widths[0] > 2 * widths[1], name


def test_all_right_is_not_certain() -> None:
    """31 of 31 found leaves a sensitivity of 0.89 possible, and the restated NPV does not claim certainty either."""
    scores = np.concatenate([np.full(31, 0.9), np.linspace(0, 0.8, 51)])
    evaluation = measure(make_predictions(scores, scores == 0.9), prevalences=(0.15,))
    sensitivity, npv = evaluation.slices.figures["sensitivity"], evaluation.restated[0].npv
    assert (sensitivity.low, sensitivity.high) == (pytest.approx(0.890, abs=5e-4), 1.0)
    assert npv.value == 1.0
    assert npv.low < 0.99


def test_unknown_people_are_said() -> None:
    """Where groups are not people there are no figures of people, and the intervals are said to be too narrow."""
    evaluation = measure(make_predictions(has_patients=False))
    assert evaluation.patients is None
    assert any("too narrow" in warning for warning in evaluation.warnings)
    assert measure(make_people()).warnings == ()


def test_one_class_is_an_error() -> None:
    """Images of one class give no figures, but a line that says what to check."""
    with pytest.raises(TrainingError, match="all 6 images of d are positive"):
        measure(make_predictions(positive=np.ones(6, bool)))


def test_people_of_one_class_have_no_auc() -> None:
    """Where each person has a positive slice, what two classes are needed for is not defined; the rest is there."""
    predictions = make_predictions(groups=np.array([0, 1, 2, 0, 1, 2]))
    patients = measure(predictions).patients
    assert patients is not None
    assert np.isnan(patients.figures["auc"].value)
    assert np.isnan(patients.figures["specificity"].value)
    assert patients.figures["sensitivity"].value == pytest.approx(2 / 3)


def test_people_are_decided_on_with_their_own_threshold() -> None:
    """A person's score is the mean of the highest slices, and exceeds the threshold of people, not that of slices."""
    predictions = make_predictions(groups=np.array([0, 0, 0, 1, 1, 1]))
    patients = measure(predictions, Decision(0.5, "rule", top_k=2, patient_threshold=0.7)).patients
    assert patients is not None
    assert (patients.count, patients.positives, patients.top_k, patients.threshold) == (2, 1, 2, 0.7)
    assert patients.confusion.true_positives == 1  # (0.9 + 0.6) / 2
    assert patients.confusion.true_negatives == 1  # (0.7 + 0.2) / 2


def test_choice_is_made_on_validation_only() -> None:
    """Other test labels change the figures, and neither threshold nor slices nor the threshold of people."""
    validation = make_people()
    decision = choose_decision("sensitivity=0.9", validation.scores, validation.positive, validation.groups)
    predictions = make_people(seed=3)
    turned = make_predictions(predictions.scores, ~predictions.positive, predictions.groups)
    honest, other = measure(predictions, decision), measure(turned, decision)
    assert honest.slices.figures["auc"].value == pytest.approx(1 - other.slices.figures["auc"].value)
    for evaluation in (honest, other):
        assert evaluation.patients is not None
        assert evaluation.slices.threshold == decision.threshold
        assert evaluation.patients.threshold == decision.patient_threshold
        assert evaluation.patients.top_k == decision.top_k
        assert evaluation.operating_point == "sensitivity=0.9, chosen on 400 validation images of 40 people"


def test_without_people_only_slices_are_chosen_for() -> None:
    """Nothing is chosen for people where they are not known."""
    decision = choose_decision("youden", SCORES, POSITIVE, None)
    assert (decision.top_k, decision.patient_threshold) == (0, 0.0)


@pytest.mark.parametrize("groups", [np.arange(6), np.array([0, 1, 2, 0, 1, 2])])
def test_there_is_no_rule_for_people_where_none_can_be_chosen(groups: NDArray[np.int64]) -> None:
    """With one image each, or people of one class alone, a person is called positive when any slice is."""
    decision = choose_decision("youden", SCORES, POSITIVE, groups)
    assert decision.top_k == 0
    patients = measure(make_predictions(groups=np.array([0, 0, 1, 1, 2, 2])), decision).patients
    assert patients is not None
    assert (patients.top_k, patients.threshold) == (1, decision.threshold)


def test_trivial_score_is_the_share_of_mid_grey() -> None:
    """The baseline counts pixels from 60 to 169."""
    images = np.array([[[[59], [60]], [[169], [170]]], [[[0], [0]], [[0], [100]]]], np.uint8)
    assert score_trivially(images).tolist() == [0.5, 0.25]


def test_nearest_neighbour_leaks_on_a_random_split() -> None:
    """Where a person's slices are alike and labels are by person, only the random split finds the label."""
    rng = np.random.default_rng(0)
    small = np.repeat(rng.normal(size=(60, 8)), 5, axis=0) + rng.normal(0, 0.01, (300, 8))
    targets = np.repeat(rng.integers(0, 2, 60), 5)
    small = small.astype(np.float32)
    nearest = evaluate_nearest(small, targets, np.arange(200), np.arange(200, len(small)), seed=1)
    assert nearest.is_right.shape == (100,)
    assert nearest.is_right.mean() < 0.8
    assert nearest.random_accuracy > 0.9
