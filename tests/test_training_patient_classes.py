"""What a model of several classes is worth for people: what each of them has, and what is answered of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from server.models.contract import ModelSpec
from tests.test_training_classes import LABELS, POSITIVE, make_three
from tests.test_training_measure import make_predictions, measure
from tests.training_fakes import SPEC
from training.evaluation.figures import ClassAnswers, Evaluation
from training.evaluation.measure import Decision
from training.evaluation.patient_classes import answer_people
from training.evaluation.positive import answer_classes, score_positive
from training.evaluation.summary import from_document, summarise, to_document
from training.report.card import render_card

HAEMORRHAGE, ISCHAEMIA, NORMAL = range(3)
SPEC_OF_THREE: ModelSpec = replace(SPEC, labels=LABELS, positive_labels=LABELS[:2])


def make_people(people: int = 60, slices: int = 4) -> tuple[ClassAnswers, np.ndarray]:
    """People with one class, of whom every other slice shows it; answers that are right more often than not."""
    rng = np.random.default_rng(5)
    own = rng.choice(3, people, p=[0.3, 0.2, 0.5])
    groups = np.repeat(np.arange(people), slices)
    targets = np.where(np.arange(len(groups)) % 2, own[groups], NORMAL)
    raw = np.exp(rng.normal(size=(len(groups), 3)) + 1.5 * np.eye(3)[targets])
    return ClassAnswers(LABELS, POSITIVE, raw / raw.sum(axis=1, keepdims=True), targets), groups


def evaluate(answers: ClassAnswers, groups: np.ndarray, top_k: int = 2) -> Evaluation:
    scores, positive = score_positive(answers.probabilities, POSITIVE), np.isin(answers.targets, POSITIVE)
    return measure(
        replace(make_predictions(scores, positive, groups), classes=answers), Decision(0.5, "0.5", top_k, 0.6)
    )


def test_person_has_the_class_of_their_positive_slices() -> None:
    """Whose slices show none is normal; who has two kinds has no class, and is left out."""
    groups = np.array([0, 0, 1, 1, 2, 2, 3])
    targets = np.array([NORMAL, ISCHAEMIA, NORMAL, NORMAL, HAEMORRHAGE, ISCHAEMIA, HAEMORRHAGE])
    found = answer_people(ClassAnswers(LABELS, POSITIVE, np.full((7, 3), 1 / 3), targets), groups, 1)

    assert found.targets.tolist() == [ISCHAEMIA, NORMAL, HAEMORRHAGE]
    assert found.probabilities.shape == (3, 3)


def test_probabilities_are_those_of_the_slices_that_make_the_score() -> None:
    """Their means add up to the score of the person, so that the decision is the same."""
    rows = np.array([[0.1, 0.1, 0.8], [0.6, 0.2, 0.2], [0.2, 0.5, 0.3], [0.0, 0.4, 0.6]])
    answers = ClassAnswers(LABELS, POSITIVE, rows, np.full(4, NORMAL))

    assert answer_people(answers, np.array([0, 0, 0, 1]), 2).probabilities == pytest.approx(
        np.array([[0.4, 0.35, 0.25], [0.0, 0.4, 0.6]])
    )


def test_people_are_measured_as_scikit_learn_does() -> None:
    """AUC of each class against the rest, sensitivity and counts, by people; the binary figures agree with them."""
    answers, groups = make_people()
    evaluation = evaluate(answers, groups)
    found, people = evaluation.patient_classes, answer_people(answers, groups, 2)
    assert found is not None
    assert evaluation.patients is not None
    answered = answer_classes(people.probabilities, POSITIVE, 0.6)

    assert found.counts == tuple(np.bincount(people.targets))
    assert sum(found.counts) == evaluation.patients.count == 60
    aucs = [roc_auc_score(people.targets == index, people.probabilities[:, index]) for index in range(3)]
    assert [one["auc"].value for one in found.figures] == pytest.approx(aucs)
    recalls = recall_score(people.targets, answered, average=None)
    assert [one["sensitivity"].value for one in found.figures] == pytest.approx(recalls)
    for one in found.figures:
        assert one["sensitivity"].low < one["sensitivity"].value <= one["sensitivity"].high
    confusion = np.array(found.confusion)
    assert confusion[:2, :2].sum() == evaluation.patients.confusion.true_positives
    assert confusion[2, 2] == evaluation.patients.confusion.true_negatives


def test_card_shows_people_by_class() -> None:
    """Beside the slices, with how many were left out."""
    answers, groups = make_people()
    answers.targets[:2] = HAEMORRHAGE, ISCHAEMIA
    summary = summarise(evaluate(answers, groups))
    card = render_card(SPEC_OF_THREE, summary, {}, "")

    assert summary.patient_classes is not None
    figure = summary.patient_classes.figures[ISCHAEMIA]["sensitivity"]
    assert f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})" in card
    assert "| class | people |" in card
    assert "What was answered for what, in people:" in card
    assert "(1 of 60 people have several, and are left out)" in card


def test_figures_of_people_survive_the_document() -> None:
    """What metrics.json says of them is read back."""
    evaluation = evaluate(*make_people())

    assert from_document(json.loads(json.dumps(to_document(evaluation)))) == summarise(evaluation)


def test_there_are_none_without_people_or_classes() -> None:
    """Nor where nobody has one class alone."""
    three, _ = make_three()
    alone = replace(three, groups=np.arange(len(three.groups)))
    mixed, groups = make_people()
    mixed.targets[::2], mixed.targets[1::2] = HAEMORRHAGE, ISCHAEMIA
    mixed.targets[-4:] = NORMAL

    assert measure(alone, Decision(0.5, "0.5")).patient_classes is None
    assert "patient_classes" not in to_document(measure(make_predictions()))
    found = evaluate(mixed, groups).patient_classes
    assert found is not None
    assert found.counts == (0, 0, 1)
