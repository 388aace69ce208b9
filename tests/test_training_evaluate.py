"""Figures of merit, and ``python -m training score``, which puts them beside a server's answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.config import ScoreConfig
from training.errors import TrainingError
from training.evaluate import (
    bootstrap_interval,
    compute_auc,
    compute_matched_auc,
    count_confusion,
    score_trivially,
    weighted_auc,
    weighted_share,
    wilson_interval,
)
from training.score import score


def count_auc_pairs(scores: np.ndarray, positive: np.ndarray) -> float:
    """The AUC by its definition, pair by pair."""
    pairs = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    return float(np.mean(pairs))


def test_auc_counts_ties_half() -> None:
    """The AUC is the share of ordered pairs, also where many scores are equal."""
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 5, 80) / 4, rng.random(80) < 0.4
    assert compute_auc(scores, positive) == pytest.approx(count_auc_pairs(scores, positive))


def test_weighted_auc_is_that_of_repeated_images() -> None:
    """A weight of 3 is the same as the image three times."""
    scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    times = np.array([3, 1, 2, 0])
    repeated = compute_auc(np.repeat(scores, times), np.repeat(positive, times))
    assert weighted_auc(scores, positive)(times[np.newaxis].astype(float))[0] == pytest.approx(repeated)


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


def test_threshold_itself_is_not_positive() -> None:
    """As served: positive where the score exceeds the threshold."""
    confusion = count_confusion(np.array([0.05, 0.06, 0.05, 0.9]), np.array([True, True, False, False]), 0.05)
    assert (confusion.true_positives, confusion.false_negatives) == (1, 1)
    assert (confusion.false_positives, confusion.true_negatives) == (1, 1)
    assert confusion.sensitivity == confusion.specificity == confusion.accuracy == 0.5


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 intervals of a mean, about 95 % hold it."""
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        hits = rng.random(150) < 0.3
        statistic = weighted_share(hits, np.ones(150, bool))
        low, high = bootstrap_interval(statistic, np.arange(150), resamples=400, seed=seed)
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
    """The same seed gives the same interval."""
    statistic = weighted_share(np.arange(50) % 3 == 0, np.ones(50, bool))
    assert bootstrap_interval(statistic, np.arange(50), seed=5) == bootstrap_interval(statistic, np.arange(50), seed=5)


@pytest.mark.parametrize(("count", "low"), [(31, 0.890), (6, 0.610)])
def test_wilson_interval_of_all_successes(count: int, low: float) -> None:
    """Even 31 of 31 leave the lower bound at 0.89, as published tables say."""
    assert wilson_interval(count, count) == (pytest.approx(low, abs=5e-4), 1.0)


def test_trivial_score_is_the_share_of_mid_grey() -> None:
    """The baseline counts pixels from 60 to 169."""
    images = np.array([[[[59], [60]], [[169], [170]]], [[[0], [0]], [[0], [100]]]], np.uint8)
    assert score_trivially(images).tolist() == [0.5, 0.25]


def write_answers(folder: Path, **changes: object) -> ScoreConfig:
    """Writes six answers and labels: one blank, one refused, one without an answer, one without a label."""
    lines: list[dict[str, object]] = [
        {"file": f"scans/{name}.png", "scores": {"normal": 1 - p, "stroke": p}, "threshold": 0.5, "label": "x"}
        | {"model": "stroke-cnn", "version": "1", "digest": "ab" * 32}
        for name, p in (("a", 0.9), ("b", 0.6), ("c", 0.7), ("d", 0.2), ("blank", 0.9), ("extra", 0.1))
    ]
    lines[0] |= changes
    lines.append({"file": "scans/broken.png", "error": "The image is damaged.", "reason": "IMAGE_UNDECODABLE"})
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = ["a.png,1,0.5,0", "b.png,1,0.4,0", "c.png,0,0.3,0", "d.png,0,0.6,0", "blank.png,0,0,1", "broken.png,1,0.2,0"]
    (folder / "labels.csv").write_text("\n".join(["file,hemorrhage,brain_fraction,blank", *rows]) + "\n")
    return ScoreConfig(
        predictions=folder / "answers.jsonl",
        labels=folder / "labels.csv",
        label_column="hemorrhage",
        exclude_column="blank",
        trivial_column="brain_fraction",
        out=folder / "results.md",
    )


def test_score_states_figures_at_the_answered_threshold(tmp_path: Path) -> None:
    """Answers are joined with labels by name; every figure is there, and everything left out is counted."""
    text = score(write_answers(tmp_path))
    assert "stroke-cnn 1 (sha256 abababababab), stroke where p > 0.5. 4 images, 2 positive" in text
    assert "1 excluded, 1 refused, 1 without an answer, 1 without a label" in text
    figures = dict(line.strip("| ").split(" | ")[:2] for line in text.splitlines() if line.startswith("| "))
    assert figures["AUC"] == "0.750"
    assert figures["AUC of `brain_fraction` alone"] == "0.500"
    assert (figures["sensitivity"], figures["specificity"]) == ("1.000", "0.500")
    assert (figures["called stroke"], figures["prevalence"]) == ("0.750", "0.500")
    assert (tmp_path / "results.md").read_text() == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "2"}, "answers of 2 models"),
        ({"file": "other/b.png"}, r"line 2: b\.png was answered before"),
        ({"scores": {"bleed": 1.0}}, "line 1: no answer with a score for stroke"),
    ],
    ids=["two-models", "twice", "other-label"],
)
def test_score_refuses_answers_that_do_not_belong_together(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    """Mixed or foreign answers are an error with the line's number, not a figure."""
    with pytest.raises(TrainingError, match=message):
        score(write_answers(tmp_path, **changes))


def test_score_names_a_missing_column(tmp_path: Path) -> None:
    """A column that the table does not have is named."""
    config = write_answers(tmp_path)
    config = ScoreConfig(predictions=config.predictions, labels=config.labels, label_column="stroke")
    with pytest.raises(TrainingError, match="has no column stroke"):
        score(config)
