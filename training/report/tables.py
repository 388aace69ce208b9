"""Figures as people read them, and tables of them in Markdown: what report and model card share."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from server.models.contract import ModelSpec
from training.evaluation.figures import Figure, Level, OwnSplit
from training.evaluation.summary import Summary

NONE = "-"

SHIFT = "calibration_shift"
"""Key of a spec's provenance."""

NAMES = {
    "auc": "AUC",
    "matched_auc": "matched AUC",
    "average_precision": "average precision",
    "specificity_at_95": "specificity at sensitivity 0.95",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
"""How the names of ``Level.figures`` are written."""

HEADLINES = ("auc", "matched_auc", "accuracy", "sensitivity", "specificity")
"""The figures that stand first, with the baselines beside them."""

MARKS = re.compile(r"([\\`*_\[\]|~$])")
"""What Markdown reads as more than itself anywhere in a line."""

STARTS = re.compile(r"^([-+#=>]|\d+(?=[.)]))")
"""What it reads so at the start of a paragraph: lists, headings, quotations."""


def escape(text: str) -> str:
    """Returns text that Markdown and HTML show as it is, on one line: labels and notes may hold anything."""
    return html.escape(MARKS.sub(r"\\\1", " ".join(text.split())), quote=False)


def make_paragraph(text: str) -> str:
    """Returns text of unknown origin as a paragraph of its own."""
    # Characters by number: a backslash escapes no digit.
    return STARTS.sub(lambda mark: f"&#{ord(mark[0][0])};{mark[0][1:]}", escape(text))


def state(figure: Figure | None) -> str:
    """Returns ``0.830 (0.781 to 0.874)``; ``not defined`` where the value is NaN."""
    if figure is None or not math.isfinite(figure.value):
        return "not defined"
    if not math.isfinite(figure.low + figure.high):
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def make_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table; cells are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def name_of(figure: str) -> str:
    return NAMES.get(figure, figure.replace("_", " "))


def tabulate_headlines(summary: Summary) -> str:
    """Returns the headline figures, each beside what needs no training, and beside leakage."""
    baselines = summary.baselines
    leaked = baselines.random_split or {}
    own = summary.own_split if summary.own_split and summary.own_split.check.leaks else None
    rows = []
    for kind, level in summary.levels.items():
        for name in (name for name in HEADLINES if name in level.figures):
            of_slices = level is summary.slices
            nearest = baselines.nearest_accuracy if of_slices and name == "accuracy" else None
            trivial = baselines.trivial_auc if of_slices and name == "auc" else None
            leakage = [f"same network {leaked[name]:.3f}"] if of_slices and name in leaked else []
            if of_slices and name == "accuracy" and baselines.nearest_random_accuracy is not None:
                leakage.append(f"1-NN {baselines.nearest_random_accuracy:.3f}")
            rows.append(
                [
                    f"{kind}: **{name_of(name)}**",
                    f"**{state(level.figures[name])}**",
                    f"{evaluate_majority(summary, level)[name]:.3f}",
                    state_optional(nearest),
                    state_optional(trivial),
                    ", ".join(leakage) or NONE,
                    *([f"**{state_leak(own, name, of_slices=of_slices)}**"] if own else []),
                ]
            )
    header = ["", "this model (95 %)", "majority", "1-NN", "trivial score", "random slice split: LEAKAGE"]
    return make_table([*header, *(["the data set's own split: LEAKAGE"] if own else [])], rows)


def state_leak(own: OwnSplit, name: str, *, of_slices: bool) -> str:
    """Returns how many test images a split gives away, and the figure on the others where there is one."""
    known = f"{own.check.known:,} of {own.check.test:,} test images known"
    without = own.others.figures.get(name) if own.others and of_slices else None
    return known if without is None else f"{known}; on the others {state(without)}"


def evaluate_majority(summary: Summary, level: Level) -> dict[str, float]:
    """Returns the headline figures of always answering the class that is more frequent in training."""
    share = summary.slices.positives / summary.slices.count
    majority = summary.baselines.majority_accuracy
    positive = abs(majority - share) < abs(majority - (1 - share))
    of_level = level.positives / level.count
    return {
        "auc": 0.5,
        "matched_auc": 0.5,
        "accuracy": majority if level is summary.slices else of_level if positive else 1 - of_level,
        "sensitivity": float(positive),
        "specificity": float(not positive),
    }


def state_optional(figure: Figure | None) -> str:
    return NONE if figure is None else state(figure)


def tabulate_figures(levels: Mapping[str, Level]) -> str:
    """Returns all figures, one column for each level by its name."""
    names = dict.fromkeys(name for level in levels.values() for name in level.figures)
    counts = [
        ("images or people", *(f"{level.count:,}" for level in levels.values())),
        ("positive", *(f"{level.positives:,}" for level in levels.values())),
        ("threshold", *(f"{level.threshold:.4g}" for level in levels.values())),
    ]
    rows = [(name_of(name), *(state_optional(level.figures.get(name)) for level in levels.values())) for name in names]
    outcomes = [
        (name.replace("_", " "), *(f"{getattr(level.confusion, name):,}" for level in levels.values()))
        for name in ("true_positives", "false_negatives", "false_positives", "true_negatives")
    ]
    return make_table(["", *levels], [*counts, *rows, *outcomes])


def tabulate_prevalences(summary: Summary) -> str:
    """Returns PPV and NPV at other prevalences."""
    rows = [(f"{100 * line.prevalence:.3g} %", state(line.ppv), state(line.npv)) for line in summary.restated]
    return make_table(["prevalence", "PPV (95 %)", "NPV (95 %)"], rows)


def explain_scaling(spec: ModelSpec) -> str:
    """Says what calibration there is in the graph."""
    if spec.temperature == 1:
        return "The probabilities are not calibrated (temperature 1)."
    shift = spec.provenance.get(SHIFT)
    added = f" and then adds to them {escape(shift)}" if shift else ""
    return (
        f"The graph divides its logits by the temperature {spec.temperature:.4g}{added}, fitted on validation patients."
    )


def explain_threshold(threshold: float, positive: Sequence[str]) -> str:
    """Says what a threshold means on calibrated probabilities: (1 - t) / t false alarms per missed stroke."""
    if not 0 < threshold < 1:
        return f"The threshold {threshold:g} answers every image alike."
    alarms = (1 - threshold) / threshold
    labels, whose = escape(" or ".join(positive)), "its probability exceeds"
    if len(positive) > 1:
        whose = "their probabilities together exceed"
    return (
        f"{labels} is answered where {whose} {threshold:.4g}. On calibrated probabilities "
        f"this tolerates {alarms:.3g} false alarms per missed stroke, since (1 - t) / t = {alarms:.3g}; on "
        "probabilities that are not calibrated it means nothing of the kind."
    )
