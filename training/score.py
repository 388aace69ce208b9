"""``python -m training score``: what a server's answers on a labelled folder are worth.

It joins the JSON lines of the client with a table of labels by file name. It needs no TensorFlow and no images.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.config import ScoreConfig
from training.errors import TrainingError
from training.evaluate import (
    RESAMPLES,
    Bools,
    Floats,
    bootstrap_interval,
    compute_auc,
    compute_matched_auc,
    count_confusion,
    cut_octiles,
    weighted_auc,
    wilson_interval,
)


@dataclass(frozen=True)
class Answers:
    """The client's JSON lines: probabilities of the positive label by file name, and who answered."""

    scores: Mapping[str, float]
    failed: int
    threshold: float
    model: str


@dataclass(frozen=True)
class Joined:
    """Answers that have a label, [N] each; ``trivial`` where a column is named for it."""

    scores: Floats
    positive: Bools
    trivial: Floats | None
    excluded: int
    unanswered: int
    unlabelled: int


def score(config: ScoreConfig) -> str:
    """Returns the figures as Markdown, and writes them where the config says so."""
    answers = read_answers(config.predictions, config.positive)
    text = render(answers, join_labels(answers, config), config)
    if config.out:
        config.out.write_text(text, encoding="utf-8")
    return text


def read_answers(path: Path, positive: str) -> Answers:
    """Reads the client's JSON lines.

    Raises:
        TrainingError: naming the line, when it is no answer, of another model, or of a file that came before.
    """
    scores: dict[str, float] = {}
    judges: set[tuple[str, float]] = set()
    failed = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            answer = json.loads(line)
            if "error" in answer:
                failed += 1
                continue
            name = Path(answer["file"]).name
            probability = float(answer["scores"][positive])
            judge = f"{answer['model']} {answer['version']} (sha256 {answer['digest'][:12]})"
            judges.add((judge, float(answer["threshold"])))
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path}, line {number}: no answer with a score for {positive}: {error!r}") from None
        if name in scores:
            raise TrainingError(f"{path}, line {number}: {name} was answered before")
        scores[name] = probability
    if len(judges) != 1:
        raise TrainingError(f"{path} has answers of {len(judges)} models; one is needed")
    model, threshold = judges.pop()
    return Answers(scores, failed, threshold, model)


def join_labels(answers: Answers, config: ScoreConfig) -> Joined:
    """Joins answers and labels by file name."""
    scores: list[float] = []
    positive: list[bool] = []
    trivial: list[float] = []
    labelled: set[str] = set()
    excluded = unanswered = 0
    with config.labels.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        named = (config.file_column, config.label_column, config.exclude_column, config.trivial_column)
        missing = [column for column in named if column and column not in (reader.fieldnames or ())]
        if missing:
            raise TrainingError(f"{config.labels} has no column {', '.join(missing)}")
        for row in reader:
            name = Path(row[config.file_column]).name
            labelled.add(name)
            if config.exclude_column and row[config.exclude_column] == "1":
                excluded += 1
            elif name not in answers.scores:
                unanswered += 1
            else:
                scores.append(answers.scores[name])
                positive.append(row[config.label_column] in ("1", config.positive))
                if config.trivial_column:
                    trivial.append(read_number(row, config.trivial_column, config.labels))
    if len(set(positive)) != 2:
        raise TrainingError(
            f"{len(scores)} answers have a label in {config.labels}, and they need both classes: check --file-column "
            "and --label-column"
        )
    return Joined(
        np.array(scores),
        np.array(positive),
        np.array(trivial) if config.trivial_column else None,
        excluded,
        unanswered,
        unlabelled=len(answers.scores.keys() - labelled),
    )


def read_number(row: Mapping[str, str], column: str, path: Path) -> float:
    try:
        return float(row[column])
    except ValueError:
        raise TrainingError(f"{path}: column {column} has {row[column]!r}, which is not a number") from None


def render(answers: Answers, joined: Joined, config: ScoreConfig) -> str:
    """Writes the figures as a Markdown table, each with its 95 % interval."""
    scores, positive = joined.scores, joined.positive
    images = np.arange(len(scores))
    confusion = count_confusion(scores, positive, answers.threshold)
    called = confusion.true_positives + confusion.false_positives
    positives = int(positive.sum())
    auc_interval = bootstrap_interval(weighted_auc(scores, positive), images)
    rows = [("AUC", compute_auc(scores, positive), auc_interval)]
    if joined.trivial is not None:
        trivial, octiles = joined.trivial, cut_octiles(joined.trivial)
        trivial_interval = bootstrap_interval(weighted_auc(trivial, positive), images)
        matched = compute_matched_auc(scores, positive, trivial)
        matched_interval = bootstrap_interval(weighted_auc(scores, positive, octiles), images)
        rows += [
            (f"AUC of `{config.trivial_column}` alone", compute_auc(trivial, positive), trivial_interval),
            (f"AUC matched by `{config.trivial_column}`", matched, matched_interval),
        ]
    rows += [
        ("sensitivity", confusion.sensitivity, wilson_interval(confusion.true_positives, positives)),
        ("specificity", confusion.specificity, wilson_interval(confusion.true_negatives, len(scores) - positives)),
        (f"called {config.positive}", called / len(scores), wilson_interval(called, len(scores))),
        ("prevalence", positives / len(scores), wilson_interval(positives, len(scores))),
    ]
    lines = [
        f"{answers.model}, {config.positive} where p > {answers.threshold:g}. {len(scores):,} images, {positives:,} "
        f"positive; {joined.excluded:,} excluded, {answers.failed:,} refused, {joined.unanswered:,} without an answer, "
        f"{joined.unlabelled:,} without a label.",
        "",
        "| | value | 95 % interval |",
        "|---|---|---|",
        *(f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} |" for name, value, (low, high) in rows if value == value),
        "",
        f"Intervals: AUC by percentile bootstrap ({RESAMPLES:,} resamples), proportions by Wilson's method; each image "
        "counts as one person.",
    ]
    return "\n".join(lines) + "\n"
