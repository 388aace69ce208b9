"""Whether tuning has helped: the parent as it came, recalibrated, and tuned, on patients that had no part in it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.models.contract import ModelSpec
from training.evaluation.figures import Predictions
from training.evaluation.measure import Decision
from training.evaluation.paired import Answered, Comparison, compare_answers
from training.evaluation.patient_level import find_positive_patients, score_patients
from training.evaluation.ranking import has_both
from training.evaluation.summary import replace_nan
from training.own.compare_page import (
    SURE,
    describe_count,
    describe_delong,
    doubt_gain,
    state_difference,
    state_p,
    tabulate_changes,
)
from training.report.tables import NONE, make_table, name_of, state

EXPLAINED = (
    "Before: the model as it came, with its own calibration and threshold. Recalibrated: its weights unchanged, with "
    "calibration and threshold fitted on this run's validation patients, as the tuned model's are; what that reaches "
    "needs no training. All on the same test patients, which chose nothing; in brackets 95 % intervals, of differences "
    "by bootstrap over people, the same resamples for all."
)


@dataclass(frozen=True)
class Judged:
    """What one of them answers about the test slices, and how it decides."""

    name: str
    scores: NDArray[np.float64]
    decision: Decision

    def answer_slices(self) -> Answered:
        """Of slices."""
        return Answered(self.name, self.scores, self.decision.threshold)

    def answer_people(self, groups: NDArray[np.int64]) -> Answered:
        """Of people: by its rule for them, or by any slice where it has none."""
        rule = self.decision
        scores = score_patients(self.scores, groups, rule.top_k or 1)
        return Answered(self.name, scores, rule.patient_threshold if rule.top_k else rule.threshold)


@dataclass(frozen=True)
class BeforeAfter:
    """Three models on the test slices, and on the people where these have several."""

    slices: tuple[Comparison, Comparison]
    """Before against after; before against recalibrated."""

    people: tuple[Comparison, Comparison] | None
    kept_parent: bool
    """Whether the parent's weights were kept, for nothing that was trained was better on validation patients."""

    was_trained: bool = True
    """Whether anything was."""

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values, for ``metrics.json``."""
        levels = {"slices": self.slices} | ({"people": self.people} if self.people else {})
        document: dict[str, Any] = replace_nan(
            {
                "conclusion": self.conclude(),
                "kept_parent": self.kept_parent,
                **{name: {"after": asdict(pair[0]), "recalibrated": asdict(pair[1])} for name, pair in levels.items()},
            }
        )
        return document

    def conclude(self) -> str:
        """Says in plain words whether it has helped, and what became of the calibration."""
        error = self.slices[0].figures["ece"]
        if not (math.isfinite(error.first.value) and math.isfinite(error.second.value)):
            return self._judge_ranking()
        return (
            f"{self._judge_ranking()} Expected calibration error {error.first.value:.3f} before, "
            f"{error.second.value:.3f} after."
        )

    def _judge_ranking(self) -> str:
        whole = self.slices[0]
        difference, p = whole.auc_difference
        auc = whole.figures["auc"]
        figures = (
            f"test AUC {auc.first.value:.3f} before and {auc.second.value:.3f} after, {state_difference(difference)}, "
            f"p {state_p(p)}, {whole.people:,} test people"
        )
        if not self.was_trained:
            return f"Nothing was trained: calibration and threshold alone are new ({figures})."
        if self.kept_parent:
            return (
                "Tuning did not help: nothing that was trained was better than the parent on the validation patients, "
                f"so the parent's weights are kept, and calibration and threshold alone are new ({figures})."
            )
        if not math.isfinite(p) or p >= SURE:
            reach = max(abs(difference.low), abs(difference.high))
            hidden = f" A difference of up to {reach:.2f} can hide in so few." if math.isfinite(reach) else ""
            return f"It is not shown that tuning helped: the interval of the difference holds 0 ({figures}).{hidden}"
        if difference.value > 0 and (doubt := doubt_gain(whole)):
            return f"It is not shown that tuning helped: it ranks better than before ({figures}), {doubt}."
        if difference.value > 0:
            return f"Tuning helped: it ranks better than before ({figures})."
        return f"Tuning did harm: it ranks worse than before ({figures}). Keep the model that was tuned."

    def render(self) -> str:
        """The section of the report, in Markdown."""
        parts = [f"**{self.conclude()}**", EXPLAINED]
        for title, pair in (("Slices", self.slices), ("People", self.people)):
            if pair is not None:
                parts += [
                    f"{title}: {describe_count(pair[0])}",
                    tabulate(*pair),
                    describe_delong(pair[0]),
                    tabulate_changes(pair[0], "before", "after"),
                ]
        return "\n\n".join(parts)


def compare_judged(
    before: Judged,
    recalibrated: Judged,
    after: Judged,
    predictions: Predictions,
    *,
    kept_parent: bool,
    was_trained: bool = True,
) -> BeforeAfter:
    """Compares the three on the test slices that ``predictions`` are of."""
    positive, groups = predictions.positive, predictions.groups
    slices = [
        compare_answers(before.answer_slices(), one.answer_slices(), positive, groups, predictions.trivial)
        for one in (after, recalibrated)
    ]
    people = None
    of_people = find_positive_patients(positive, groups)
    if predictions.has_patients and len(of_people) < len(groups) and has_both(of_people):
        numbers = np.arange(len(of_people))
        pair = [
            compare_answers(before.answer_people(groups), one.answer_people(groups), of_people, numbers)
            for one in (after, recalibrated)
        ]
        people = pair[0], pair[1]
    return BeforeAfter((slices[0], slices[1]), people, kept_parent, was_trained)


def tabulate(after: Comparison, recalibrated: Comparison) -> str:
    """Returns the figures of all three side by side, and what lies between the first and the last."""
    rows = [
        (
            name_of(name),
            state(pair.first),
            state(recalibrated.figures[name].second),
            state(pair.second),
            state_difference(pair.difference),
            state_p(pair.p),
        )
        for name, pair in after.figures.items()
    ]
    thresholds = (after.thresholds[0], recalibrated.thresholds[1], after.thresholds[1])
    before, anew, tuned = (f"{threshold:.4g}" for threshold in thresholds)
    rows.append(("threshold", before, anew, tuned, NONE, NONE))
    header = ["", "before (95 %)", "recalibrated (95 %)", "after (95 %)", "after less before (95 %)", "p"]
    return make_table(header, rows)


def decide_as(spec: ModelSpec) -> Decision:
    """Returns how a model decides that is there already."""
    return Decision(spec.threshold, "its own", spec.study_top_k, spec.study_threshold)
