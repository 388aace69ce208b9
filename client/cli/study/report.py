"""What people and programs see of a study: the answer on standard output, what to know about it on standard error."""

from __future__ import annotations

import json
import sys

from ..._errors import StrokeClientError
from ...files.folder import LeftOut
from ...study.types import StudyPrediction, StudySeries, StudySlice
from ..report import advise
from ..results import NOT_ANALYSED, Fields, failure_to_json, list_reasons, round_score
from ..terminal import FAILED, FAINT, POSITIVE, WARNING, Terminal, escape

_HEADS = ("slice", "mm", "probability", "answer", "file")
_RIGHT = ("slice", "mm", "probability")


class StudyReport:
    """Takes the studies of a run as they come.

    Args:
        as_json: print an object for each instead of text.
        has_slices: print the table of the slices, too.
        is_quiet: print failures, and nothing else on standard error.
    """

    def __init__(self, *, as_json: bool, has_slices: bool, is_quiet: bool) -> None:
        self._as_json = as_json
        self._has_slices = has_slices
        self._is_quiet = is_quiet
        self._output = Terminal(sys.stdout, is_quiet=is_quiet)
        self._notes = Terminal(sys.stderr, is_quiet=is_quiet)

    def add(self, name: str, study: StudyPrediction, left_out: LeftOut) -> None:
        """Takes a study that was judged, with what its folder holds beside slices."""
        if self._as_json:
            print(json.dumps(study_to_json(name, study, left_out)), flush=True)
        else:
            self._print_answer(name, study)
        for one in study.failed:
            self._notes.print(escape(f"{one.name}: "), ("error", FAILED), escape(f": {one.error}"))
        if self._is_quiet:
            return
        if not self._as_json:
            for warning in study.warnings:
                self._notes.print(escape(f"{name}: "), ("warning", WARNING), escape(f": {warning.message}"))
        if others := left_out.describe():
            self._notes.print(("note", FAINT), escape(f": {others}"))

    def add_failure(self, name: str, error: StrokeClientError) -> None:
        """Takes a study that was not judged."""
        if self._as_json:
            print(json.dumps(failure_to_json(name, error)), flush=True)
        self._notes.print(escape(f"{name}: "), ("error", FAILED), escape(f": {error}"))

    def _print_answer(self, name: str, study: StudyPrediction) -> None:
        style = POSITIVE if study.is_positive else "" if study.is_analysed else WARNING
        answer = escape(str(study))
        self._output.print(escape(f"{name}: "), (answer, style) if style else answer)
        if (first := study.first_look) is not None:
            place = study.slices.index(first) + 1
            text = f"look first at {first.name}: slice {place} of {len(study.slices)}, {_describe_score(study, first)}"
            self._output.print(escape(f"{name}: {text}"))
        for reason in study.reasons:
            if (advice := advise(reason)) != reason.message:
                self._output.print(escape(f"{name}: {reason.reason}: {advice.removeprefix(reason.message).strip()}"))
        for series in study.left_out:
            self._output.print(escape(f"{name}: left out: {_describe_series(series)}"))
        if self._has_slices and study.slices:
            self._output.print_table(_HEADS, _list_rows(study), right=_RIGHT)


def _describe_score(study: StudyPrediction, one: StudySlice) -> str:
    return f"P({study.positive_text}) {one.positive_probability:.3f}"


def _describe_series(series: StudySeries) -> str:
    count = f"{series.slices} slice{'' if series.slices == 1 else 's'}"
    return f"a series of {count} [{series.reason}] {series.message}"


def _list_rows(study: StudyPrediction) -> list[list[str]]:
    """Returns the cells of the table of slices; the one to look at first has a star."""
    has_positions = any(one.position_mm for one in study.slices)
    rows = []
    for number, one in enumerate(study.slices, 1):
        star = "* " if one is study.first_look else ""
        position = f"{one.position_mm:.1f}" if has_positions else ""
        rows.append(
            [
                f"{star}{number}",
                position,
                f"{one.positive_probability:.3f}",
                escape(_name_answer(one)),
                escape(one.name),
            ]
        )
    return rows


def _name_answer(one: StudySlice) -> str:
    """Returns what came of a slice, in a word or the reasons' codes."""
    if one.error is not None:
        return one.error.reason
    return "analysed" if one.is_analysed else " ".join(reason.reason for reason in one.reasons) or NOT_ANALYSED


def study_to_json(name: str, study: StudyPrediction, left_out: LeftOut) -> Fields:
    """Returns the object that ``--json`` prints: the answer first, and everything that stands behind it."""
    first = study.first_look
    return {
        "file": name,
        "label": study.label or None,
        "score": round_score(study.score) if study.is_analysed else None,
        "threshold": study.threshold,
        "top_k": study.top_k,
        "positive_label": study.positive_label or None,
        "positive_labels": list(study.positive_labels),
        "status": str(study.status),
        "reasons": list_reasons(study.reasons),
        "first_look": {"file": str(first.source), "frame": first.frame or None} if first is not None else None,
        "series": _series_to_json(study.series) if study.series is not None else None,
        "left_out": [_series_to_json(series) for series in study.left_out],
        "failures": [_failure_to_json(one) for one in study.failures],
        "files_left_out": [{"file": path, "kind": kind} for path, kind in sorted(left_out.files.items())],
        "warnings": list_reasons(study.warnings),
        "slices": [_slice_to_json(one) for one in study.slices],
        "model": study.model,
        "version": study.version,
        "digest": study.digest,
        "study_instance_uid": study.study_instance_uid or None,
        "request_id": study.request_id,
    }


def _series_to_json(series: StudySeries) -> Fields:
    return {
        "series_instance_uid": series.series_instance_uid or None,
        "slices": series.slices,
        "reason": series.reason or None,
        "message": series.message or None,
        "spacing_mm": round(series.spacing_mm, 3),
        "tilt_degrees": round(series.tilt_degrees, 3),
    }


def _slice_to_json(one: StudySlice) -> Fields:
    return {
        "file": str(one.source),
        "frame": one.frame or None,
        "positive_probability": round_score(one.positive_probability),
        "status": str(one.status),
        "reasons": list_reasons(one.reasons),
        "position_mm": round(one.position_mm, 3),
        "sop_instance_uid": one.sop_instance_uid or None,
        "image_sha256": one.image_sha256,
        **(_error_to_json(one) if one.error is not None else {}),
    }


def _failure_to_json(one: StudySlice) -> Fields:
    return {"file": str(one.source), "frame": one.frame or None, **_error_to_json(one)}


def _error_to_json(one: StudySlice) -> Fields:
    return {"error": str(one.error), "reason": one.error.reason if one.error is not None else None}
