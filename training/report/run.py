"""``report.md`` and ``report.html``: what a run has reached, beside what it takes no network to reach.

It only writes what it is given; nothing is trained or predicted here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from server.models.contract import ModelSpec
from training.evaluation.figures import Evaluation
from training.evaluation.summary import Summary, summarise
from training.report.classes import describe_classes
from training.report.html import write_page
from training.report.records import count_split
from training.report.subgroups import describe_own_split, describe_subgroups
from training.report.tables import (
    HEADLINES,
    NONE,
    escape,
    explain_scaling,
    explain_threshold,
    make_paragraph,
    make_table,
    name_of,
    state,
    tabulate_figures,
    tabulate_headlines,
    tabulate_prevalences,
)

BASELINES_EXPLAINED = (
    "Beside each figure stands what needs no training. Majority: always answering the class that is more frequent in "
    "training. 1-NN: the label of the most similar training image at 32 x 32 pixels, people held out. Trivial score: "
    "a number that needs no network, named above; the matched AUC compares only images in which it is about the same "
    "(the same octile), so that it cannot explain the answers. The last column repeats the figure with slices split at "
    "random: slices of one person are then in training and in test, and it shows how far such a split misleads, not "
    "what the model can do. A dash: not measured, or not defined."
)
NOT_TESTED = (
    "Other hospitals, scanners, protocols, window settings and countries than those of the images above.",
    "Whole studies read by a radiologist as the reference, and the model's effect on readers or on time to treatment.",
    "Subgroups by age, sex, scanner or kind and size of the finding, unless a table above names them.",
    "Images that are no axial non-contrast head CT, or that are cropped, inverted or annotated.",
    "Change over time: nothing here says how long the figures hold.",
)
PLOTS = {
    "roc.png": ("ROC curve", "The band is the pointwise 95 % interval; the diamond is the operating point."),
    "precision_recall.png": ("Precision-recall curve", "Chance is the share of positive slices, not 0.5."),
    "decision_curve.png": (
        "Decision curve",
        "Net benefit of acting on the answers at each threshold; a model is of use where it lies above both others.",
    ),
    "confusion.png": ("Confusion matrix", "Counts, and percentages of each actual class."),
    "classes.png": ("Confusion matrix of the classes", "Counts, and percentages of each actual class."),
    "reliability.png": (
        "Reliability diagram",
        "Observed share of positive slices over the predicted probability; below, the slices in each bin.",
    ),
    "gallery.png": (
        "Gallery of test images",
        "Drawn at random. Confidence is the probability of the predicted label; with a low threshold a positive answer "
        "can have a low one.",
    ),
    "errors.png": ("Gallery of the worst errors", "The false positives and false negatives of highest confidence."),
    "accuracy.png": ("Accuracy over the epochs", "The dotted line is the epoch whose weights were kept."),
    "loss.png": ("Loss over the epochs", "The dotted line is the epoch whose weights were kept."),
}
"""Plots that a report shows where the folder has them: what each is, and how to read it."""


def write_report(
    folder: Path,
    spec: ModelSpec,
    evaluation: Evaluation,
    *,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    more: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes ``report.md`` and ``report.html`` about a run, with those of ``PLOTS`` and ``split.csv`` that are there.

    Args:
        folder: the run folder; write the plots first.
        spec: of the trained model; its provenance is shown.
        evaluation: figures on the held-out test images.
        warnings: of data and split; those of the evaluation are added.
        notes: shown below the warnings.
        more: sections below the warnings, heading and Markdown.
    """
    sections = describe(folder, spec, summarise(evaluation), warnings, notes)
    sections[1:1] = more
    title = f"{spec.name} {spec.version}"
    write_page(folder, "report", f"Report on {title}", join(title, sections))


def write_folds_report(
    folder: Path,
    spec: ModelSpec,
    pooled: Evaluation,
    folds: Sequence[Summary],
    *,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Writes ``report.md`` and ``report.html`` about a cross-validation.

    Args:
        folder: the run folder; plots are those of the pooled answers.
        spec: of one of the networks, or what they have in common.
        pooled: figures of all images, each predicted by the network that has not seen its person.
        folds: figures of each fold's own test images.
        warnings: of data and split.
        notes: shown below the warnings.
    """
    sections = describe(folder, spec, summarise(pooled), warnings, notes)
    per_fold = (
        f"The figures above pool the answers of {len(folds)} networks, each on the people that it has not seen; they "
        "are of the recipe, not of one network. Scores of different networks are compared with each other in a pooled "
        "AUC, so it can lie below the mean of the folds.\n\n" + tabulate_folds(folds)
    )
    sections.insert(2, ("Each fold", per_fold))
    title = f"{spec.name} {spec.version}, {len(folds)} folds"
    write_page(folder, "report", f"Report on {title}", join(title, sections))


def tabulate_folds(folds: Sequence[Summary]) -> str:
    """Returns headline figures, one row a fold, and their means over the folds in which they are defined."""
    names = [name for name in HEADLINES if any(name in fold.slices.figures for fold in folds)]
    rows = [
        [
            str(number),
            f"{fold.slices.count:,}",
            f"{fold.slices.threshold:.4g}",
            *(state(fold.slices.figures.get(name)) for name in names),
            state(fold.baselines.trivial_auc),
        ]
        for number, fold in enumerate(folds, start=1)
    ]
    means = [
        mean_of(fold.slices.figures[name].value for fold in folds if name in fold.slices.figures) for name in names
    ]
    trivial = mean_of(fold.baselines.trivial_auc.value for fold in folds)
    header = ["fold", "slices", "threshold", *map(name_of, names), "AUC of the trivial score"]
    return make_table(header, [*rows, ["**mean**", NONE, NONE, *means, trivial]])


def mean_of(values: Iterable[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return f"**{fmean(known):.3f}**" if known else "not defined"


def join(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """Returns the page; the section without a heading comes below the title."""
    parts = [f"# {escape(title)}"]
    for heading, text in sections:
        parts += [f"## {heading}", text] if heading else [text]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe(
    folder: Path, spec: ModelSpec, summary: Summary, warnings: Sequence[str], notes: Sequence[str]
) -> list[tuple[str, str]]:
    """Returns the sections of a report: heading and Markdown."""
    alarms = sorted(dict.fromkeys([*warnings, *summary.warnings]), key=lambda line: not line.startswith("WARNING"))
    front = [f"> **{escape(alarm)}**" for alarm in alarms]
    front += [make_paragraph(text) for text in (spec.intended_use, *notes)]
    who = "people" if summary.patients else "people where they are known, of images otherwise"
    intervals = (
        f"Test images of {escape(summary.data)}. In brackets: 95 % intervals, by bootstrap over {who}. The trivial "
        f"score is the {escape(summary.baselines.trivial_name)}."
    )
    figures = [tabulate_figures(summary.levels), describe_patients(summary)]
    operating = [
        f"Chosen by: {escape(summary.operating_point)}.",
        explain_threshold(summary.slices.threshold, spec.positive_labels),
    ]
    if summary.restated:
        operating += [
            "The share of positive images here is not that of a clinic. What a positive and a negative answer would be "
            "worth at other prevalences, by Bayes' rule from sensitivity and specificity:",
            tabulate_prevalences(summary),
        ]
    classes = [("Classes", "\n\n".join(describe_classes(summary)))] if summary.classes else []
    own_split = describe_own_split(summary.own_split, with_files=True) if summary.own_split else []
    return [
        ("", "\n\n".join(front)),
        ("Headline", "\n\n".join([intervals, tabulate_headlines(summary), BASELINES_EXPLAINED])),
        ("All figures", "\n\n".join([*filter(None, figures), *show(folder, "confusion.png", "classes.png")])),
        *classes,
        *([("Subgroups", "\n\n".join(describe_subgroups(summary.subgroups)))] if summary.subgroups else []),
        ("Operating point", "\n\n".join([*operating, *show(folder, "decision_curve.png")])),
        ("Curves", "\n\n".join(show(folder, "roc.png", "precision_recall.png"))),
        ("Calibration", "\n\n".join([describe_calibration(spec, summary), *show(folder, "reliability.png")])),
        ("Predictions", "\n\n".join(show(folder, "gallery.png", "errors.png"))),
        ("Images", "\n\n".join([count_split(folder) or "not recorded", *own_split])),
        ("Training", "\n\n".join([*show(folder, "accuracy.png", "loss.png"), tabulate_provenance(spec)])),
        ("What was not tested", "\n".join(f"- {line}" for line in NOT_TESTED)),
    ]


def describe_patients(summary: Summary) -> str:
    if summary.patients is None:
        return (
            "There are no figures of patients: it is not known which images are of one person, or each has one image."
        )
    return (
        f"A person's score is the mean of the {summary.patients.top_k} highest scores of the slices; that number was "
        "chosen on validation patients, and so was the threshold on it."
    )


def describe_calibration(spec: ModelSpec, summary: Summary) -> str:
    """Says what calibration there is in the graph, and what is left to wish for."""
    figures = summary.slices.figures
    return (
        f"{explain_scaling(spec)} Expected calibration error {state(figures.get('ece'))}, Brier score "
        f"{state(figures.get('brier'))}. Calibration holds at this data's share of positive images; where they are "
        "rarer, probabilities are too high."
    )


def show(folder: Path, *files: str) -> list[str]:
    """Returns the images of a section, with what each shows and how to read it, as far as the folder has them."""
    there = {file: PLOTS[file] for file in files if (folder / file).exists()}
    return [
        f"![{name}]({file})\n\n{name}: {caption[0].lower()}{caption[1:]}" for file, (name, caption) in there.items()
    ]


def tabulate_provenance(spec: ModelSpec) -> str:
    rows = [(escape(key.replace("_", " ")), escape(value)) for key, value in spec.provenance.items() if value]
    return make_table(["fact", "value"], rows)
