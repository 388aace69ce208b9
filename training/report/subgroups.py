"""The figures by subgroup and how far they are apart, and what the data set's own split leaks, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluation.figures import OwnSplit, Subgroup, Subgroups
from training.evaluation.subgroups import LEAST_PEOPLE
from training.report.tables import escape, make_table, name_of, state

TOO_FEW = "too few people"
GAPS_EXPLAINED = (
    "The fairness gap is the largest difference of a figure between two groups of a column. Its interval is that of "
    "the difference between these two, from the same resamples of people; they were chosen as the farthest apart, so "
    "with many groups a gap is there by chance."
)


def describe_subgroups(subgroups: Sequence[Subgroups]) -> list[str]:
    """Returns a table for each column and level, its smallest group, and its gaps; nothing where there are none."""
    if not subgroups:
        return []
    paragraphs = [part for one in subgroups for part in describe_column(one)]
    rule = (
        f"A figure needs {LEAST_PEOPLE} people behind it: with positive images for a sensitivity, with negative ones "
        "for a specificity, of each for an AUC; where they are not known, as many images."
    )
    return [*paragraphs, f"{rule} {GAPS_EXPLAINED}"]


def describe_column(subgroups: Subgroups) -> list[str]:
    """Returns the paragraphs of one column."""
    column, groups = escape(subgroups.column), subgroups.groups
    names = list(groups[0].figures)
    header = [f"{column}, {subgroups.level}", "count", "people", "positive", *map(name_of, names)]
    rows = [
        [
            escape(group.value),
            f"{group.count:,}",
            f"{group.people:,}",
            f"{group.positives:,}",
            *(state_figure(group, name) for name in names),
        ]
        for group in groups
    ]
    smallest = next(group for group in groups if group.value == subgroups.smallest)
    lines = [f"Smallest group of {column}: **{escape(smallest.value)}**, {smallest.people:,} people."]
    few = [f"{escape(group.value)} ({', '.join(map(name_of, group.too_few))})" for group in groups if group.too_few]
    if few:
        lines.append(f"Too small for a figure: {'; '.join(few)}.")
    paragraphs = [make_table(header, rows), " ".join(lines)]
    if subgroups.gaps:
        gaps = [
            [name_of(name), f"**{state(gap.difference)}**", escape(gap.highest), escape(gap.lowest)]
            for name, gap in subgroups.gaps.items()
        ]
        paragraphs.append(
            make_table([f"fairness gap, {column}, {subgroups.level}", "difference (95 %)", "highest", "lowest"], gaps)
        )
    return paragraphs


def state_figure(group: Subgroup, name: str) -> str:
    return TOO_FEW if name in group.too_few else state(group.figures[name])


def describe_own_split(own: OwnSplit, *, with_files: bool) -> list[str]:
    """Returns what the data set's own split has in two parts.

    Args:
        own: what was found.
        with_files: whether images are named; not in what travels with the model.
    """
    check = own.check
    paragraphs = [f"**{escape(check.describe())}.**" if check.leaks else f"{escape(check.describe())}."]
    header = ["in two parts of the split", *(["such as"] if with_files else [])]
    rows = [
        [escape(what), *([escape(shared.name_examples()) or "-"] if with_files else [])]
        for what, shared in check.list_findings()
    ]
    paragraphs.append(make_table(header, rows))
    if own.others:
        figures = ", ".join(f"{name_of(name)} {state_figure(own.others, name)}" for name in own.others.figures)
        paragraphs.append(
            f"On the {own.others.count:,} test images that are not known from training or validation "
            f"({own.others.positives:,} positive): {figures}."
        )
    return paragraphs
