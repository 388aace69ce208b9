"""One answer for a study, of what its slices came to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from server.core.study.choice import SeriesChoice, SeriesReport, choose_series
from server.core.study.rules import SeriesRules
from server.core.study.slices import StudySlice, order_by_id
from server.core.study.stack import PlacedSlice, Stack
from server.images.checks import Reason
from server.images.image_file import ImageWarning
from server.models.contract import ModelSpec
from server.models.runtime import OnnxModel

LEAST_TILT = 1.0
"""Degrees from which on a tilt is worth a word."""

MOST_REASONS = 5
"""Of slices, that stand for the whole study."""

INDETERMINATE = Reason(
    "INDETERMINATE",
    "The score of the study is too near to the threshold: by the model's own measure it says nothing.",
)
WRONG_MODALITY = Reason("WRONG_MODALITY", "The study is no CT: send slices of a head CT.")
NO_SERIES = Reason(
    "NO_SERIES", "No series of the study could be judged: what was left out, and what could not be read, says why."
)


@dataclass(frozen=True)
class StudyAnswer:
    """The judgement of a study."""

    id: str
    model: OnnxModel
    label: str
    """Empty when the study was not analysed."""

    positive_label: str
    """The positive label that it has, or would have above the threshold; empty when it may be one of several and no
    slice was analysed."""

    score: float
    """In [0, 1]; 0 when no slice was analysed."""

    reasons: tuple[Reason, ...]
    """Why it was not analysed; empty when it was."""

    first_look: StudySlice | None
    slices: tuple[PlacedSlice, ...]
    """Of the series that was judged, in order."""

    series: SeriesReport | None
    study: str
    """StudyInstanceUID of that series."""

    left_out: tuple[SeriesReport, ...]
    failures: tuple[StudySlice, ...]
    warnings: tuple[ImageWarning, ...]


def answer_study(study_id: str, slices: Sequence[StudySlice], model: OnnxModel, rules: SeriesRules) -> StudyAnswer:
    """Chooses the series, puts its slices in order, and scores it. The order in which slices came changes nothing.

    Args:
        study_id: how the caller, or the server, calls the study.
        slices: all that came.
        model: whose answers they have; its spec has the rule of the score.
        rules: what a series must be.
    """
    failures = [one for one in slices if one.facts is None and one.refusal is not None]
    choice = choose_series([one for one in slices if one.facts is not None or one.refusal is None], rules)
    analysed = choice.stack.analysed if choice.stack else []
    spec = model.spec
    highest = sorted(analysed, key=lambda one: one.probability, reverse=True)[: spec.study_top_k]
    score = math.fsum(one.probability for one in highest) / len(highest) if highest else 0.0
    positive_label = find_positive_label(highest, spec)
    reasons = find_reasons(choice, analysed, score, spec)
    return StudyAnswer(
        id=study_id,
        model=model,
        label="" if reasons else positive_label if score > spec.study_threshold else find_other_label(analysed, spec),
        positive_label=positive_label,
        score=score,
        reasons=reasons,
        first_look=max(analysed, key=lambda one: one.probability, default=None),
        slices=choice.stack.slices if choice.stack else (),
        series=choice.series,
        study=choice.study,
        left_out=choice.left_out,
        failures=tuple(sorted(failures, key=order_by_id)),
        warnings=tuple(find_warnings(choice, slices)),
    )


def find_positive_label(highest: Sequence[StudySlice], spec: ModelSpec) -> str:
    """The positive label that is answered above the threshold: of several the most probable one, on average over the
    slices of which the score is made; of equals, the first named."""
    if len(spec.positive_labels) == 1 or not highest:
        return spec.only_positive_label
    sums = [math.fsum(column) for column in zip(*(one.positive_probabilities for one in highest), strict=True)]
    return spec.positive_labels[sums.index(max(sums))]


def find_other_label(analysed: Sequence[StudySlice], spec: ModelSpec) -> str:
    """The label that is answered otherwise: of those that are not positive the one that most slices would have."""
    counts = Counter(one.other_label for one in analysed)
    return spec.labels[max(sorted(counts), key=counts.__getitem__)]


def find_reasons(
    choice: SeriesChoice, analysed: Sequence[StudySlice], score: float, spec: ModelSpec
) -> tuple[Reason, ...]:
    """Why a study is not analysed; nothing where it is."""
    if choice.stack is None:
        return (WRONG_MODALITY if choice.is_other_modality else NO_SERIES,)
    if not analysed:
        return sum_up(choice.stack)
    if abs(score - spec.study_threshold) < spec.indeterminate_margin:
        return (INDETERMINATE,)
    return ()


def sum_up(stack: Stack) -> tuple[Reason, ...]:
    """Why none of a series' slices was analysed: the reasons of the slices, the most frequent first."""
    counts: Counter[str] = Counter()
    texts: dict[str, Reason] = {}
    for one in (placed.slice for placed in stack.counted):
        refusal = (Reason(one.refusal.reason, one.refusal.message),) if one.refusal else ()
        for reason in (*one.reasons, *refusal):
            counts[reason.reason] += 1
            texts.setdefault(reason.reason, reason)
    return tuple(texts[name] for name in sorted(counts, key=lambda name: (-counts[name], name))[:MOST_REASONS])


def find_warnings(choice: SeriesChoice, slices: Sequence[StudySlice]) -> list[ImageWarning]:
    """What a careful reader should know of the series that was judged, and of what came beside it."""
    found = []
    studies = {one.facts.study for one in slices if one.facts is not None}
    if len(studies) > 1:
        text = f"Slices of {len(studies)} studies came; an answer is of one series, and so of one study."
        found.append(ImageWarning("SEVERAL_STUDIES", text))
    others = sum(one.reason == "OTHER_SERIES_PREFERRED" for one in choice.left_out)
    if others:
        text = f"{others + 1} series could have been judged, and one was; the others are among those left out."
        found.append(ImageWarning("SEVERAL_SERIES", text))
    return found + (find_stack_warnings(choice.stack) if choice.stack else [])


def find_stack_warnings(stack: Stack) -> list[ImageWarning]:
    """What a careful reader should know of a series."""
    found = []
    count, counted = len(stack.slices), len(stack.counted)
    if not stack.is_ordered:
        text = "Slices do not say where they lie: those are in the order of their ids, and gaps cannot be seen."
        found.append(ImageWarning("UNORDERED", text))
    if stack.gaps:
        text = f"{len(stack.gaps)} gaps between slices, up to {max(stack.gaps):.1f} mm; usual are {stack.spacing:.1f}."
        found.append(ImageWarning("SLICE_GAP", text))
    if counted < count:
        text = f"{count - counted} of {count} slices show what another one shows, and do not count."
        found.append(ImageWarning("SLICE_DUPLICATE", text))
    if stack.tilt >= LEAST_TILT:
        text = f"The gantry was tilted by {stack.tilt:.1f} degrees; slices are in order along their normal."
        found.append(ImageWarning("GANTRY_TILT", text))
    refused = sum(one.slice.refusal is not None for one in stack.slices)
    if refused:
        text = f"{refused} of {count} slices could not be judged, and have no part in the score."
        found.append(ImageWarning("SLICE_FAILED", text))
    if any(one.slice.is_lossy for one in stack.slices):
        found.append(ImageWarning("IMAGE_LOSSY", "Slices were compressed in a way that loses detail."))
    return found
