"""More than two classes: what is measured of each, how they are decided on, and where that is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from server.core.decision import decide
from server.models.contract import ModelSpec
from tests.test_training_measure import make_predictions, measure
from tests.training_fakes import EVALUATION, SPEC, read_images
from training.errors import TrainingError
from training.evaluation.bootstrap import wilson_interval
from training.evaluation.calibration import Scaling, fit_scaling
from training.evaluation.classes import evaluate_classes
from training.evaluation.figures import ClassAnswers, ClassFigures, Evaluation, Predictions
from training.evaluation.measure import Decision
from training.evaluation.positive import answer_classes, score_positive
from training.evaluation.summary import from_document, summarise, to_document
from training.report.card import render_card
from training.report.plots import write_plots
from training.report.run import write_report
from training.report.tables import explain_threshold
from training.run.folder import check_flags
from training.settings.train import TrainConfig

LABELS = ("haemorrhage", "ischaemia", "normal")
POSITIVE = np.array([0, 1])
THRESHOLD = 0.5


def make_answers(count: int = 240, people: int = 60, seed: int = 3) -> tuple[ClassAnswers, NDArray[np.int64]]:
    """Answers that are right more often than not, and whose slice each is."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(3, count, p=[0.3, 0.2, 0.5])
    logits = rng.normal(size=(count, 3)) + 1.5 * np.eye(3)[targets]
    return ClassAnswers(LABELS, POSITIVE, softmax(logits, axis=1), targets), np.arange(count) % people


def make_three(count: int = 240) -> tuple[Predictions, Evaluation]:
    """The same as predictions, and measured."""
    answers, groups = make_answers(count)
    scores, positive = score_positive(answers.probabilities, POSITIVE), np.isin(answers.targets, POSITIVE)
    predictions = replace(make_predictions(scores, positive, groups), classes=answers)
    return predictions, measure(predictions, Decision(THRESHOLD, "0.5", 2, 0.5))


def test_classes_are_measured_as_scikit_learn_does() -> None:
    """AUC of each class against the rest and their mean, sensitivity, PPV, accuracy, and counts of each answer."""
    answers, groups = make_answers()
    found = evaluate_classes(answers, THRESHOLD, groups)
    answered = answer_classes(answers.probabilities, POSITIVE, THRESHOLD)
    targets, options = answers.targets, {"labels": range(3), "average": None}
    assert [one["sensitivity"].value for one in found.figures] == pytest.approx(
        recall_score(targets, answered, **options)
    )
    assert [one["ppv"].value for one in found.figures] == pytest.approx(precision_score(targets, answered, **options))
    aucs = [roc_auc_score(targets == index, answers.probabilities[:, index]) for index in range(3)]
    assert [one["auc"].value for one in found.figures] == pytest.approx(aucs)
    macro = roc_auc_score(targets, answers.probabilities, multi_class="ovr", average="macro")
    assert found.overall["macro_auc"].value == pytest.approx(macro)
    assert found.overall["macro_sensitivity"].value == pytest.approx(recall_score(targets, answered, average="macro"))
    assert found.overall["accuracy"].value == pytest.approx((answered == targets).mean())
    assert found.counts == tuple(np.bincount(targets))
    assert found.confusion[0][2] == ((targets == 0) & (answered == 2)).sum()
    assert found.majority_accuracy == (targets == 2).mean()


def test_intervals_are_over_people() -> None:
    """Each figure lies in its interval, which is wide where four slices each are of one person, and say the same."""
    answers, groups = make_answers()
    found = evaluate_classes(answers, THRESHOLD, groups)
    figures = [*(figure for one in found.figures for figure in one.values()), *found.overall.values()]
    assert all(figure.low < figure.value < figure.high for figure in figures)
    probabilities, targets = (np.repeat(part, 4, axis=0) for part in (answers.probabilities, answers.targets))
    repeated = replace(answers, probabilities=probabilities, targets=targets)
    alike = evaluate_classes(repeated, THRESHOLD, np.repeat(np.arange(240), 4))
    alone = evaluate_classes(repeated, THRESHOLD, np.arange(960))
    width = [one.overall["accuracy"].high - one.overall["accuracy"].low for one in (alike, alone)]
    assert width[0] > 1.5 * width[1]


def test_a_class_that_is_never_missed_is_not_certain() -> None:
    """Where all 7 people of a class are found, Wilson's interval stands in for the bootstrap's certainty."""
    targets = np.array([0] * 7 + [1] * 5 + [2] * 9)
    found = evaluate_classes(ClassAnswers(LABELS, POSITIVE, np.eye(3)[targets], targets), THRESHOLD, np.arange(21))
    figure = found.figures[0]["sensitivity"]
    assert (figure.value, figure.low, figure.high) == (1.0, *wilson_interval(7, 7))


def test_a_class_without_images_has_no_figures() -> None:
    """What other data lack is not defined, and the means are over the classes that are there."""
    answers, groups = make_answers()
    kept = answers.targets != 1
    part = replace(answers, probabilities=answers.probabilities[kept], targets=answers.targets[kept])
    found = evaluate_classes(part, THRESHOLD, np.unique(groups[kept], return_inverse=True)[1])
    assert np.isnan([found.figures[1]["auc"].value, found.figures[1]["sensitivity"].value]).all()
    assert found.figures[1]["ppv"].value == 0
    assert found.overall["macro_auc"].value == pytest.approx(np.mean([found.figures[n]["auc"].value for n in (0, 2)]))
    assert found.counts[1] == 0
    assert np.isfinite([found.overall["macro_auc"].low, found.overall["macro_sensitivity"].low]).all()


@pytest.mark.parametrize("positive", [(0, 1), (2, 0), (1,)])
def test_answers_are_those_of_the_server(positive: tuple[int, ...]) -> None:
    """What training counts as the answer is what the served decision gives, at any threshold."""
    rng = np.random.default_rng(5)
    probabilities = rng.dirichlet([1, 1, 1], 200).astype(np.float32)
    for threshold in (0.0, 0.05, 0.5, 0.97):
        spec = ModelSpec("m", "1", LABELS, tuple(LABELS[index] for index in positive), threshold)
        served = [decide(row, spec) for row in probabilities]
        assert answer_classes(probabilities, np.array(positive), threshold).tolist() == served


def test_each_fold_decides_with_its_own_threshold() -> None:
    """Pooled answers have a threshold for each image."""
    probabilities = np.array([[0.3, 0.2, 0.5]] * 2)
    assert answer_classes(probabilities, POSITIVE, np.array([0.4, 0.6])).tolist() == [0, 2]


def test_the_score_is_the_sum_of_the_positive_labels() -> None:
    """In float64, at most 1; of one label it is that label's probability to the bit."""
    rows = np.array([[0.3, 0.2, 0.5], [0.75, 0.2500001, 0.0]], np.float32)
    assert score_positive(rows, POSITIVE).tolist() == [float(rows[0, 0]) + float(rows[0, 1]), 1.0]
    assert score_positive(rows, np.array([1])).tolist() == rows[:, 1].astype(np.float64).tolist()


def test_one_temperature_and_a_shift_of_each_calibrate_all_classes() -> None:
    """Logits that are four times too large are found out, whatever the number of classes."""
    rng = np.random.default_rng(8)
    honest = softmax(rng.normal(size=(4000, 3)) * 1.5, axis=1)
    targets = np.array([rng.choice(3, p=row) for row in honest])
    found = fit_scaling(Scaling(0.25, np.array([0.5, 0.5, -1])).apply(honest), targets)
    assert found.temperature == pytest.approx(4, rel=0.15)
    assert found.shift == pytest.approx([-0.125, -0.125, 0.25], abs=0.1)


def test_two_classes_have_no_such_figures() -> None:
    """The document of a model of two classes is what it was."""
    evaluation = measure(make_predictions())
    assert evaluation.classes is None
    assert "classes" not in to_document(evaluation)


def test_figures_of_classes_survive_the_document() -> None:
    """What metrics.json says is read back, undefined figures included."""
    predictions, evaluation = make_three()
    document = json.loads(json.dumps(to_document(evaluation)))
    assert from_document(document) == summarise(evaluation)
    assert isinstance(from_document(document).classes, ClassFigures)
    assert predictions.classes is not None


@pytest.mark.usefixtures("blank_plots")
def test_report_and_card_show_each_class(tmp_path: Path) -> None:
    """Figures with intervals by class, their means, what was answered for what; the picture is in the page."""
    predictions, evaluation = make_three()
    spec = replace(SPEC, labels=LABELS, positive_labels=LABELS[:2])
    write_plots(tmp_path, evaluation, predictions, read_images, ("normal", "positive"))
    write_report(tmp_path, spec, evaluation)
    card = render_card(spec, summarise(evaluation), {}, "")
    assert evaluation.classes is not None
    figure = evaluation.classes.figures[1]["sensitivity"]
    stated = f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
    for page in ((tmp_path / "report.md").read_text("utf-8"), card):
        assert "| ischaemia (positive) |" in page
        assert "| normal |" in page
        assert stated in page
        assert f"| haemorrhage | {' | '.join(map(str, evaluation.classes.confusion[0]))} |" in page
        assert "haemorrhage or ischaemia is answered where their probabilities together exceed 0." in page
    assert (tmp_path / "report.html").read_text("utf-8").count("<img") == 8
    assert "classes.png" in (tmp_path / "report.md").read_text("utf-8")


def test_report_of_two_classes_has_no_such_section(tmp_path: Path) -> None:
    """Neither heading nor picture."""
    write_report(tmp_path, SPEC, EVALUATION)
    assert "## Classes" not in (tmp_path / "report.md").read_text("utf-8")


def test_one_positive_label_is_explained_as_before() -> None:
    """The sentence about several is about several."""
    assert explain_threshold(0.05, ("stroke",)).startswith("stroke is answered where its probability exceeds 0.05.")


@pytest.mark.parametrize(
    ("positive", "message"),
    [
        (("stroke",), "--positive stroke is not among the labels: haemorrhage, ischaemia, normal"),
        (("haemorrhage", "bleed"), "--positive bleed is not among the labels"),
        (LABELS, "--positive names all labels"),
    ],
)
def test_positive_labels_are_some_and_not_all(tmp_path: Path, positive: tuple[str, ...], message: str) -> None:
    """Labels that the data lack, or a set that leaves nothing negative, are refused by name."""
    from training.data.labels import ImageSet

    images = ImageSet(tmp_path, LABELS, (), np.zeros(0, np.int64), ())
    images.require(LABELS[:1])
    with pytest.raises(TrainingError, match=message):
        images.require(positive)


def test_a_run_that_recorded_one_label_as_a_text_goes_on(tmp_path: Path) -> None:
    """``--resume`` finds the same flags in what an earlier version began; another label is another run."""
    config = TrainConfig(data=tmp_path, out=tmp_path / "run")
    for label in ("stroke", ["stroke"]):
        (tmp_path / "run.json").write_text(json.dumps({"flags": {"positive": label}}), "utf-8")
        check_flags(config, tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"flags": {"positive": "bleed"}}), "utf-8")
    with pytest.raises(TrainingError, match="here and was bleed"):
        check_flags(config, tmp_path)
