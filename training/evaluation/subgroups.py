"""The figures by subgroup: for each value of a column such as site, sex or age band; and how far the groups are apart.

All groups of a column see the same resamples of people, so that the interval of a difference counts people who are in
both. Groups are named as labels.csv names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import Ratio, Statistic, bootstrap_intervals, wilson_interval
from training.evaluation.calibration import weighted_calibration_error
from training.evaluation.decision import Threshold, weighted_decision
from training.evaluation.figures import Bools, Figure, Floats, Gap, PatientLevel, Predictions, Subgroup, Subgroups
from training.evaluation.patient_level import find_positive_patients, score_patients
from training.evaluation.ranking import cut_octiles, weighted_auc

LEAST_PEOPLE = 5
"""People without whom a group has no figure: that many with positive slices for a sensitivity, with negative ones for a
specificity, of each for an AUC. Of four people no share has an interval narrower than half of everything, and a figure
of two says more of them than of the model."""

GAPS = ("auc", "sensitivity", "specificity")
SHARES = ("sensitivity", "specificity")
SEVERAL = "several"
"""Group of people of whose images a column does not say the same."""


@dataclass(frozen=True)
class Scored:
    """What was answered about images or people, and what is on them; arrays are [N]."""

    scores: Floats
    positive: Bools
    people: NDArray[np.int64]
    """Number of the person, 0 to G-1."""

    threshold: Threshold
    octiles: NDArray[np.int64] | None = None
    """Of the trivial score among all images, where a matched AUC is wanted."""


def measure_subgroups(
    predictions: Predictions,
    threshold: Threshold,
    patients: PatientLevel | None,
    columns: Mapping[str, Sequence[str]],
) -> tuple[Subgroups, ...]:
    """Measures the answers by what each column says of the images.

    Args:
        predictions: about N images.
        threshold: of the decision on slices; one, or one for each image.
        patients: the figures of people, with the rule that they are decided by; None where there are none, or each has
            a rule of its own.
        columns: [N] texts by the name of the column.

    Returns:
        For each column the slices and, with ``patients``, the people.
    """
    slices = Scored(
        predictions.scores, predictions.positive, predictions.groups, threshold, cut_octiles(predictions.trivial)
    )
    found = []
    for column, values in columns.items():
        found.append(measure_column(column, "slices", values, slices))
        if patients is not None:
            people = Scored(
                score_patients(predictions.scores, predictions.groups, patients.top_k),
                find_positive_patients(predictions.positive, predictions.groups),
                np.arange(int(predictions.groups.max()) + 1),
                patients.threshold,
            )
            found.append(measure_column(column, "patients", tell_people(values, predictions.groups), people))
    return tuple(found)


def tell_people(values: Sequence[str], groups: NDArray[np.int64]) -> list[str]:
    """Returns what a column says of each person [G], or that it says several things."""
    said: list[set[str]] = [set() for _ in range(int(groups.max()) + 1)]
    for value, person in zip(values, groups.tolist(), strict=True):
        said[person].add(value)
    return [one.pop() if len(one) == 1 else SEVERAL for one in said]


def measure_column(column: str, level: str, values: Sequence[str], scored: Scored) -> Subgroups:
    """Measures the groups of one column, and the largest differences between them."""
    names, numbers = np.unique(np.array(values, dtype=object).astype(str), return_inverse=True)
    groups, gaps = measure_groups([str(name) for name in names], numbers, scored)
    smallest = min(groups, key=lambda group: (group.people, group.count))
    return Subgroups(column, level, groups, smallest.value, gaps)


def measure_groups(
    names: Sequence[str], numbers: NDArray[np.int64], scored: Scored
) -> tuple[tuple[Subgroup, ...], dict[str, Gap]]:
    """Measures groups of images, or people, and the largest differences between them.

    Args:
        names: of the groups.
        numbers: [N], index into ``names``; every name occurs.
        scored: what is measured.
    """
    members = [numbers == index for index in range(len(names))]
    behind = [count_behind(scored, own) for own in members]
    statistics = [
        {name: part for name, part in make_statistics(scored, own).items() if behind[index][name] >= LEAST_PEOPLE}
        for index, own in enumerate(members)
    ]
    once = np.ones((1, len(numbers)))
    values = [{name: float(part(once)[0]) for name, part in parts.items()} for parts in statistics]
    pairs = {name: pair for name in GAPS if (pair := find_farthest([own.get(name, np.nan) for own in values]))}
    wanted: dict[str, Statistic] = {
        f"{index} {name}": part for index, parts in enumerate(statistics) for name, part in parts.items()
    }
    for name, (high, low) in pairs.items():
        wanted[f"gap {name}"] = subtract(statistics[high][name], statistics[low][name])
    ends = bootstrap_intervals(wanted, scored.people) if wanted else {}
    figures = [
        {name: make_figure(name, value, ends[f"{index} {name}"], behind[index][name]) for name, value in own.items()}
        for index, own in enumerate(values)
    ]
    undefined = Figure(np.nan, np.nan, np.nan)
    groups = tuple(
        Subgroup(
            value=names[index],
            count=int(own.sum()),
            people=len(np.unique(scored.people[own])),
            positives=int(scored.positive[own].sum()),
            figures={name: figures[index].get(name, undefined) for name in behind[index]},
            too_few=tuple(name for name in behind[index] if name not in figures[index]),
        )
        for index, own in enumerate(members)
    )
    gaps = {
        name: Gap(
            measure_gap(name, figures[high][name], figures[low][name], ends[f"gap {name}"]), names[high], names[low]
        )
        for name, (high, low) in pairs.items()
    }
    return groups, gaps


def count_behind(scored: Scored, own: Bools) -> dict[str, int]:
    """Returns how many people stand behind each figure of a group, in the order of a report."""
    positive, negative, everybody = (
        len(np.unique(scored.people[own & part])) for part in (scored.positive, ~scored.positive, own)
    )
    both = min(positive, negative)
    matched = {} if scored.octiles is None else {"matched_auc": both}
    return {"auc": both, **matched, "sensitivity": positive, "specificity": negative, "ece": everybody}


def make_statistics(scored: Scored, own: Bools) -> dict[str, Statistic]:
    """Returns the figures of a group as functions of weights of all images; the names are those of ``count_behind``."""
    places = np.flatnonzero(own)
    scores, positive = scored.scores[own], scored.positive[own]
    inner: dict[str, Statistic] = {"auc": weighted_auc(scores, positive)}
    if scored.octiles is not None:
        inner["matched_auc"] = weighted_auc(scores, positive, scored.octiles[own])
    inner["ece"] = weighted_calibration_error(scores, positive)
    rates = weighted_decision(scored.scores, scored.positive, scored.threshold)
    return {
        **{name: pick(part, places) for name, part in inner.items()},
        **{
            name: Ratio(np.logical_and(rates[name].numerator, own), np.logical_and(rates[name].denominator, own))
            for name in SHARES
        },
    }


def pick(statistic: Statistic, places: NDArray[np.int64]) -> Statistic:
    """Returns a statistic of some images as a function of the weights of all."""
    return lambda weights: statistic(np.take(weights, places, axis=1))


def subtract(high: Statistic, low: Statistic) -> Statistic:
    return lambda weights: high(weights) - low(weights)


def find_farthest(values: Sequence[float]) -> tuple[int, int] | None:
    """Returns the positions of the highest and the lowest value; None where fewer than two are numbers."""
    known = [index for index, value in enumerate(values) if np.isfinite(value)]
    if len(known) < 2:
        return None
    return max(known, key=lambda index: values[index]), min(known, key=lambda index: (values[index], -index))


def make_figure(name: str, value: float, ends: Floats, people: int) -> Figure:
    """Returns a figure with its interval; of shares of 0 and 1 by Wilson's method, as in ``measure.widen_certain``."""
    if name in SHARES and value in (0.0, 1.0):
        return Figure(value, *wilson_interval(round(value * people), people))
    return Figure(value, float(ends[0]), float(ends[1]))


def measure_gap(name: str, high: Figure, low: Figure, ends: Floats) -> Figure:
    """Returns a difference with its interval: that of the two groups that are farthest apart here.

    Where a share is 0 or 1 no resample moves it; then the interval is Newcombe's (1998, method 10), from those of both.
    """
    difference = high.value - low.value
    if name in SHARES and {high.value, low.value} & {0.0, 1.0}:
        below = float(np.hypot(high.value - high.low, low.high - low.value))
        above = float(np.hypot(high.high - high.value, low.value - low.low))
        return Figure(difference, max(-1.0, difference - below), min(1.0, difference + above))
    return Figure(difference, float(ends[0]), float(ends[1]))


def measure_others(predictions: Predictions, threshold: Threshold, known: Bools) -> Subgroup | None:
    """Measures the images that are not known [N] from elsewhere; None where all are, or none is."""
    if not known.any() or known.all():
        return None
    scored = Scored(
        predictions.scores, predictions.positive, predictions.groups, threshold, cut_octiles(predictions.trivial)
    )
    groups, _ = measure_groups(["not known", "known"], known.astype(np.int64), scored)
    return groups[0]
