"""What ``python -m training evaluate`` says, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.bootstrap import RESAMPLES, wilson_interval
from training.evaluation.figures import Evaluation
from training.evaluation.summary import summarise, to_document
from training.report.classes import describe_classes
from training.report.subgroups import describe_subgroups
from training.report.tables import (
    escape,
    explain_threshold,
    make_table,
    state,
    tabulate_figures,
    tabulate_headlines,
    tabulate_prevalences,
)


def render_page(evaluations: Mapping[str, Evaluation], refused: Mapping[str, str], positive: Sequence[str]) -> str:
    """Returns the page, in Markdown.

    Args:
        evaluations: by what they are of, all images first.
        refused: why each image without a prediction was refused, by file.
        positive: the model's positive labels.
    """
    whole = next(iter(evaluations.values()))
    lines = [f"# {escape(whole.model)} on {escape(whole.data.rpartition(',')[0])}", ""]
    lines += [line for warning in whole.warnings for line in (f"**{escape(warning)}**", "")]
    lines += [explain_threshold(whole.slices.threshold, positive), ""]
    for name, evaluation in evaluations.items():
        lines += [f"## {escape(name)}", "", render_evaluation(evaluation)]
    lines += [
        f"In brackets: 95 % intervals, by percentile bootstrap over people ({RESAMPLES:,} resamples); by Wilson's "
        "method for prevalence, share called positive, and shares of 0 or 1. Trivial score: "
        f"{escape(whole.baselines.trivial_name)}, which needs no model; the matched AUC compares only images of the "
        "same octile of it. Majority: always answering the more frequent class. 1-NN: the most similar image of other "
        "people at 32 x 32 pixels.",
        "",
    ]
    if refused:
        lines += ["## Refused images", "", *(f"- {escape(file)}: {escape(why)}" for file, why in refused.items()), ""]
    return "\n".join(lines)


def render_evaluation(evaluation: Evaluation) -> str:
    """Returns the tables of one evaluation."""
    summary = summarise(evaluation)
    slices, confusion = evaluation.slices, evaluation.slices.confusion
    called = confusion.true_positives + confusion.false_positives
    shares = [
        (name, f"{part / slices.count:.3f} ({low:.3f} to {high:.3f})")
        for name, part in (("prevalence", slices.positives), ("share called positive", called))
        for low, high in [wilson_interval(part, slices.count)]
    ]
    parts = [
        tabulate_headlines(summary),
        make_table(
            ["slices", "value (95 %)"],
            [*shares, ("AUC of the trivial score", state(evaluation.baselines.trivial_auc))],
        ),
        tabulate_figures(summary.levels),
        *describe_classes(summary),
    ]
    parts += describe_subgroups(evaluation.subgroups)
    if evaluation.restated:
        parts += ["At another prevalence, with sensitivity and specificity as above:", tabulate_prevalences(summary)]
    return "\n\n".join(parts) + "\n"


def render_document(evaluations: Mapping[str, Evaluation], refused: Mapping[str, str]) -> dict[str, Any]:
    """Returns the same as JSON values; see ``training.evaluation.summary`` for the figures."""
    return {
        "evaluations": {name: to_document(evaluation) for name, evaluation in evaluations.items()},
        "refused": dict(refused),
    }
