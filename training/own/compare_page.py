"""What ``python -m training compare`` says, as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from training.evaluation.bootstrap import RESAMPLES
from training.evaluation.figures import Figure
from training.evaluation.paired import Comparison
from training.evaluation.summary import replace_nan
from training.report.tables import NONE, escape, make_table, name_of, state

SURE = 0.05
"""A p value below this is called a difference."""


def render_page(
    names: tuple[str, str],
    data: str,
    compared: Mapping[str, Comparison],
    warnings: Sequence[str],
    refused: Mapping[str, str],
) -> str:
    """Returns the page, in Markdown.

    Args:
        names: of both models.
        data: what they were compared on.
        compared: by what it is of, all images first.
        warnings: what a reader has to know.
        refused: why each image without two answers was refused, by file.
    """
    whole = next(iter(compared.values()))
    lines = [f"# A and B on {escape(data)}", "", f"- A: {escape(names[0])}", f"- B: {escape(names[1])}", ""]
    lines += [line for warning in warnings for line in (f"**{escape(warning)}**", "")]
    lines += [f"**{conclude(whole)}**", ""]
    for title, comparison in compared.items():
        lines += [f"## {escape(title)}", "", render_comparison(comparison), ""]
    lines += [
        f"In brackets: 95 % intervals. Those of the figures, of their differences, and p are by bootstrap over people "
        f"({RESAMPLES:,} resamples, the same for both models); where no answer changed, by Wilson's method. Each model "
        "decides with its own threshold. The matched AUC compares only images of the same octile of the trivial score.",
        "",
    ]
    if refused:
        lines += ["## Refused images", "", *(f"- {escape(file)}: {escape(why)}" for file, why in refused.items()), ""]
    return "\n".join(lines)


def conclude(comparison: Comparison, first: str = "A", second: str = "B") -> str:
    """Returns what the difference of the AUCs says, in a sentence or two."""
    difference, p = comparison.auc_difference
    how = "DeLong" if comparison.is_independent else "bootstrap over people"
    figures = f"AUC {state_difference(difference)}, p {state_p(p)}, {how}"
    if not math.isfinite(p):
        return f"Nothing can be said of {first} and {second}: too few images of a class."
    if p >= SURE:
        reach = max(abs(difference.low), abs(difference.high))
        return (
            f"No difference between {first} and {second} was found ({figures}). One of up to {reach:.2f} either way "
            f"can be hidden in {comparison.people:,} people."
        )
    better, worse = (second, first) if difference.value > 0 else (first, second)
    doubt = doubt_gain(comparison)
    return f"{better} ranks better than {worse} ({figures}){f', {doubt}' if doubt else ''}."


def doubt_gain(comparison: Comparison) -> str:
    """Says that a better order is none among images in which the trivial score is about the same; empty: it is one, or
    that was not measured."""
    matched, auc = comparison.figures.get("matched_auc"), comparison.figures["auc"]
    if matched is None or (matched.p < SURE and matched.difference.value * auc.difference.value > 0):
        return ""
    return (
        f"but not where the trivial score is about the same (matched AUC {state_difference(matched.difference)}, "
        f"p {state_p(matched.p)}): what was gained may be no more than the amount of brain"
    )


def render_comparison(comparison: Comparison, first: str = "A", second: str = "B") -> str:
    """Returns the tables of one comparison."""
    return "\n\n".join(
        [
            describe_count(comparison),
            tabulate_pairs(comparison, tuple(comparison.figures), first, second),
            describe_delong(comparison),
            tabulate_changes(comparison, first, second),
        ]
    )


def describe_count(comparison: Comparison) -> str:
    """Says of how many images or people the figures are."""
    known = "" if comparison.count == comparison.people else f" of {comparison.people:,} people"
    return f"{comparison.count:,}{known}, {comparison.positives:,} positive."


def tabulate_pairs(comparison: Comparison, names: Sequence[str], first: str, second: str) -> str:
    """Returns some figures of both models side by side, and their thresholds."""
    pairs = {name: comparison.figures[name] for name in names}
    rows = [
        (name_of(name), state(pair.first), state(pair.second), state_difference(pair.difference), state_p(pair.p))
        for name, pair in pairs.items()
    ]
    before, after = comparison.thresholds
    rows.append(("threshold", f"{before:.4g}", f"{after:.4g}", NONE, NONE))
    return make_table(["", f"{first} (95 %)", f"{second} (95 %)", f"{second} less {first} (95 %)", "p"], rows)


def describe_delong(comparison: Comparison) -> str:
    """Says what DeLong's test says, and whether it may be believed."""
    test = comparison.delong
    figures = f"difference of the AUCs {state_difference(test.difference)}, p {state_p(test.p)}"
    if comparison.is_independent:
        return f"DeLong's test for correlated curves: {figures}."
    return (
        f"DeLong's test by slice: {figures}. It takes slices for independent, which those of one person are not, and "
        "is too sure of itself: the bootstrap above is what counts."
    )


def tabulate_changes(comparison: Comparison, first: str, second: str) -> str:
    """Returns how many answers changed, of each class."""
    changes = {"positive": comparison.positive_changes, "negative": comparison.negative_changes}
    header = ["answers", "both right", f"only {first}", f"only {second}", "both wrong", "p (McNemar, exact)"]
    rows = [
        (
            name,
            *(f"{count:,}" for count in (one.both_right, one.only_first_right, one.only_second_right, one.both_wrong)),
            state_p(one.p),
        )
        for name, one in changes.items()
    ]
    return make_table(header, rows)


def state_difference(figure: Figure) -> str:
    """Returns ``+0.030 (-0.010 to +0.070)``."""
    if not math.isfinite(figure.value):
        return "not defined"
    return f"{figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"


def state_p(p: float) -> str:
    return "not defined" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def render_document(
    names: tuple[str, str],
    data: str,
    compared: Mapping[str, Comparison],
    warnings: Sequence[str],
    refused: Mapping[str, str],
) -> dict[str, Any]:
    """Returns the same as JSON values; for the arguments see ``render_page``."""
    document: dict[str, Any] = replace_nan(
        {
            "a": names[0],
            "b": names[1],
            "data": data,
            "conclusion": conclude(next(iter(compared.values()))),
            "comparisons": {title: describe_comparison(one) for title, one in compared.items()},
            "warnings": list(warnings),
            "refused": dict(refused),
        }
    )
    return document


def describe_comparison(comparison: Comparison) -> dict[str, Any]:
    """Returns all that a comparison says, and which test of the AUCs counts."""
    return {**asdict(comparison), "auc_test": "delong" if comparison.is_independent else "bootstrap over people"}
