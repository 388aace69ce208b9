"""Two models on the same images: their figures side by side, and what lies between them, with intervals over people.

Both are drawn together in every resample, so that what makes some people harder than others cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from training.evaluation.bootstrap import Statistic, draw_values, find_quantiles, wilson_interval
from training.evaluation.delong import AucTest, compare_aucs
from training.evaluation.figures import Bools, Figure, Floats
from training.evaluation.measure import make_figure, measure_level, widen_certain
from training.evaluation.ranking import compute_matched_auc, cut_octiles, weighted_auc

COMPARED = ("auc", "matched_auc", "sensitivity", "specificity", "brier", "ece")
"""The figures that are compared, in the order of a report; the matched AUC of slices alone."""


@dataclass(frozen=True)
class Answered:
    """What one model answers about N images, or people."""

    name: str
    scores: Floats
    """[N], in [0, 1]."""

    threshold: float
    """Its own, to be exceeded."""

    @property
    def called(self) -> Bools:
        """[N], whether the answer is positive."""
        called: Bools = self.scores > self.threshold
        return called


@dataclass(frozen=True)
class Pair:
    """One figure of both models."""

    first: Figure
    second: Figure
    difference: Figure
    """The second less the first."""

    p: float
    """Two-sided, by the same resamples: how easily the difference has its sign by chance."""


@dataclass(frozen=True)
class Changes:
    """How many answers about images of one class changed from one model to the other."""

    both_right: int
    only_first_right: int
    only_second_right: int
    both_wrong: int
    p: float
    """McNemar's test, exact: how likely so uneven changes are where both models are equally good. It takes images for
    independent of each other."""


@dataclass(frozen=True)
class Comparison:
    """Two models, compared on slices or on people."""

    count: int
    positives: int
    people: int
    thresholds: tuple[float, float]
    figures: Mapping[str, Pair]
    """By name, those of ``COMPARED`` that there are."""

    delong: AucTest
    positive_changes: Changes
    negative_changes: Changes

    @property
    def is_independent(self) -> bool:
        """Whether each person has one score, so that DeLong's and McNemar's tests may be believed."""
        return self.people == self.count

    @property
    def auc_difference(self) -> tuple[Figure, float]:
        """The difference of the AUCs with its interval, and its p value: by DeLong where each person has one score,
        otherwise by bootstrap over people."""
        if self.is_independent:
            return self.delong.difference, self.delong.p
        pair = self.figures["auc"]
        return pair.difference, pair.p


def compare_answers(
    first: Answered,
    second: Answered,
    positive: Bools,
    groups: NDArray[np.int64],
    covariate: Floats | None = None,
) -> Comparison:
    """Compares the answers of two models.

    Args:
        first: of one model.
        second: of the other, about the same images in the same order.
        positive: [N], true for positive images; both classes must occur.
        groups: [N], number of the person of each image, 0 to G-1.
        covariate: [N], what the matched AUC is matched by; None leaves it out.
    """
    pair = first, second
    values: list[dict[str, float]] = []
    statistics: dict[str, Statistic] = {}
    for turn, answered in enumerate(pair):
        own, weighted = measure_level(answered.scores, positive, answered.threshold)
        if covariate is not None:
            own["matched_auc"] = compute_matched_auc(answered.scores, positive, covariate)
            weighted["matched_auc"] = weighted_auc(answered.scores, positive, cut_octiles(covariate))
        values.append(own)
        statistics |= {f"{turn} {name}": weighted[name] for name in COMPARED if name in weighted}
    drawn = draw_values(statistics, groups)
    ends = [
        {name: find_quantiles(drawn[f"{turn} {name}"]) for name in COMPARED if name in own}
        for turn, own in enumerate(values)
    ]
    for answered, own, own_ends in zip(pair, values, ends, strict=True):
        widen_certain(own_ends, own, answered.scores, positive, groups, answered.threshold)
    figures = {}
    for name in [name for name in COMPARED if name in ends[0]]:
        sides = [make_figure(own[name], own_ends[name]) for own, own_ends in zip(values, ends, strict=True)]
        figures[name] = compare_figure(sides[0], sides[1], drawn[f"1 {name}"] - drawn[f"0 {name}"])
    right = [answered.called == positive for answered in pair]
    changes = [count_changes(right[0][chosen], right[1][chosen]) for chosen in (positive, ~positive)]
    for name, of_class, change in zip(("sensitivity", "specificity"), (positive, ~positive), changes, strict=True):
        figures[name] = widen_unchanged(figures[name], change, len(np.unique(groups[of_class])))
    return Comparison(
        count=len(positive),
        positives=int(positive.sum()),
        people=int(groups.max()) + 1,
        thresholds=(first.threshold, second.threshold),
        figures=figures,
        delong=compare_aucs(first.scores, second.scores, positive),
        positive_changes=changes[0],
        negative_changes=changes[1],
    )


def compare_figure(first: Figure, second: Figure, apart: Floats) -> Pair:
    """Compares one figure of both models; ``apart`` is the difference in each resample, [R]."""
    return Pair(first, second, make_figure(second.value - first.value, find_quantiles(apart)), find_p(apart))


def find_p(apart: Floats) -> float:
    """Returns a two-sided p value of a difference, from that of each resample [R]: twice the share beyond 0.

    The difference itself counts as one more resample, so that it never is 0.
    """
    known = apart[np.isfinite(apart)]
    if not len(known):
        return math.nan
    least = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (least + 1) / (len(known) + 1))


def count_changes(first: Bools, second: Bools) -> Changes:
    """Counts the images [N] by which of the two models are right about them."""
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    changed = only_first + only_second
    p = float(binomtest(only_first, changed).pvalue) if changed else 1.0
    return Changes(int((first & second).sum()), only_first, only_second, int((~first & ~second).sum()), p)


def widen_unchanged(pair: Pair, changes: Changes, people: int) -> Pair:
    """Widens the interval of a difference where no answer has changed: no resample could have had one that has.

    Of so many people, as many may change elsewhere as Wilson's interval of 0 still has.
    """
    if changes.only_first_right or changes.only_second_right or not people:
        return pair
    reach = wilson_interval(0, people)[1]
    return Pair(pair.first, pair.second, Figure(0.0, -reach, reach), 1.0)
