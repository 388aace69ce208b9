"""Which series of a study is judged, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from server.core.study.exclusion import Exclusion, describe_thickness, want_thickness
from server.core.study.rules import SeriesRules
from server.core.study.slices import StudySlice
from server.core.study.stack import Stack

WHOLE = 0.8
"""A series that shows less than this share of what another one shows is a part."""

MOST_SHOWN = 3
"""Of what slices of one series have that is left out."""


@dataclass(frozen=True)
class SeriesReport:
    """A series, as its caller learns of it."""

    uid: str
    slices: int
    spacing: float = 0.0
    tilt: float = 0.0
    reason: str = ""
    """Why it was left out; empty for the one that was judged."""

    message: str = ""


@dataclass(frozen=True)
class SeriesChoice:
    """What was chosen."""

    stack: Stack | None
    """The series that is judged; None: there is none."""

    series: SeriesReport | None
    study: str
    """StudyInstanceUID of it."""

    left_out: tuple[SeriesReport, ...]
    is_other_modality: bool = False
    """Whether nothing was CT."""


def choose_series(slices: Sequence[StudySlice], rules: SeriesRules) -> SeriesChoice:
    """Chooses among the slices of files that could be read.

    Files without a header are one series, which is judged where no file has one: what they are nobody can check, so
    they neither take the place of a series of which it is known, nor are they mixed with it.

    Args:
        slices: with facts, or without and not refused.
        rules: what a series must be.
    """
    plain = [one for one in slices if one.facts is None]
    groups: dict[tuple[str, str], list[StudySlice]] = {}
    for one in slices:
        if one.facts is not None:
            groups.setdefault((one.facts.study, one.facts.series), []).append(one)
    if not groups:
        stack = Stack(plain) if plain else None
        return SeriesChoice(stack, SeriesReport("", len(plain)) if plain else None, "", ())
    left_out: list[SeriesReport] = []
    stacks: dict[tuple[str, str], Stack] = {}
    for key, members in sorted(groups.items()):
        left_out += report_excluded(key[1], members)
        rest = [one for one in members if one.facts and one.facts.exclusion is None]
        if not rest:
            continue
        stack = Stack(rest)
        fault = find_fault(stack, rules)
        if fault is None:
            stacks[key] = stack
        else:
            left_out.append(report(key[1], stack, fault))
    if plain:
        wants = "files with headers where some have one"
        mixed = Exclusion("MIXED_FORMATS", wants, "PNG or JPEG files, of which nobody can tell what they show")
        left_out.append(SeriesReport("", len(plain), reason=mixed.reason, message=tell(mixed)))
    best = prefer(stacks, rules)
    if best is None:
        is_other = not plain and all(one.reason == "WRONG_MODALITY" for one in left_out)
        return SeriesChoice(None, None, "", tuple(left_out), is_other)
    for key, stack in stacks.items():
        if key != best:
            left_out.append(report(key[1], stack, describe_preference(stack, stacks[best], rules)))
    return SeriesChoice(stacks[best], report(best[1], stacks[best]), best[0], tuple(left_out))


def report_excluded(uid: str, members: Sequence[StudySlice]) -> list[SeriesReport]:
    """The slices of a series that are not judged, by reason. A series may hold some of these among others."""
    found: dict[str, list[Exclusion]] = {}
    for one in members:
        if one.facts and one.facts.exclusion:
            found.setdefault(one.facts.exclusion.reason, []).append(one.facts.exclusion)
    reports = []
    for reason, exclusions in sorted(found.items()):
        counts = Counter(one.has for one in exclusions)
        has = [text for text, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        text = ", ".join(has[:MOST_SHOWN]) + (" and others" if len(has) > MOST_SHOWN else "")
        shown = Exclusion(reason, exclusions[0].wants, text)
        reports.append(SeriesReport(uid, len(exclusions), reason=reason, message=tell(shown)))
    return reports


def find_fault(stack: Stack, rules: SeriesRules) -> Exclusion | None:
    """What is wrong with a series as a whole."""
    count = len(stack.counted)
    if count < rules.least_slices:
        return Exclusion("TOO_FEW_SLICES", f"at least {rules.least_slices} slices", f"{count}")
    if has := describe_thickness(stack.thickness, rules):  # of slices that do not state it, their distance
        return Exclusion("SLICE_THICKNESS", want_thickness(rules), has)
    return None


def prefer(stacks: dict[tuple[str, str], Stack], rules: SeriesRules) -> tuple[str, str] | None:
    """The series that is judged of several that could be.

    That of which something was analysed, with a brain's kernel rather than an unknown one, which is no mere part, whose
    slices are nearest to the preferred thickness, which has most slices; then the first by UID, so that the same study
    has the same answer in whatever order it comes.
    """
    most = max((stack.extent for stack in stacks.values()), default=0.0)

    def rank(key: tuple[str, str]) -> tuple[object, ...]:
        stack = stacks[key]
        return (
            not stack.analysed,
            not has_brain_kernel(stack),
            stack.extent < WHOLE * most,
            round(abs(stack.thickness - rules.preferred_thickness_mm), 3),
            -len(stack.counted),
            key,
        )

    return min(stacks, key=rank, default=None)


def has_brain_kernel(stack: Stack) -> bool:
    """Whether its slices say so."""
    return any(one.slice.facts is not None and one.slice.facts.has_brain_kernel for one in stack.slices)


def describe_preference(stack: Stack, best: Stack, rules: SeriesRules) -> Exclusion:
    """Why another series was judged, though this one could have been."""

    def show(one: Stack) -> str:
        kernel = "a brain's kernel" if has_brain_kernel(one) else "a kernel that is not known"
        return f"{len(one.counted)} slices of {one.thickness:.4g} mm over {one.extent:.0f} mm, with {kernel}"

    wants = (
        f"one series, of a brain's kernel, whole, with slices near {rules.preferred_thickness_mm:g} mm, and the one "
        f"that is judged has {show(best)}"
    )
    return Exclusion("OTHER_SERIES_PREFERRED", wants, show(stack))


def report(uid: str, stack: Stack, fault: Exclusion | None = None) -> SeriesReport:
    """A series that has an order."""
    reason, message = (fault.reason, tell(fault)) if fault else ("", "")
    return SeriesReport(uid, len(stack.slices), stack.spacing, stack.tilt, reason, message)


def tell(exclusion: Exclusion) -> str:
    """A sentence for people."""
    return f"The rule wants {exclusion.wants}; this has {exclusion.has}."
