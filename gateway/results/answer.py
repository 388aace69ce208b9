"""What all results say of a study, worked out once from the client's answer and the study's headers."""

from __future__ import annotations

from dataclasses import dataclass

from client import AnalysisStatus, Reason, StrokeClientError, StudyPrediction, StudySlice
from gateway.results.headers import Instance, StudyHeaders
from gateway.results.urgency import Urgency

NOTICE = "Research software. Not for diagnosis."
SOFTWARE = "StrokeServe"


@dataclass(frozen=True)
class Reference:
    """An instance, or frames of it."""

    instance: Instance
    frames: tuple[int, ...] = ()
    """From 1; empty: all of it."""


@dataclass(frozen=True)
class FirstLook:
    """The slice to look at first."""

    reference: Reference
    place: int
    """In the series that was judged, from 1, from the feet."""

    slices: int
    probability: float

    def describe(self) -> str:
        """``series 2, image 17 (slice 17 of 35)``, by the numbers that viewers show."""
        one = self.reference.instance
        series = f"series {one.series_number}, " if one.series_number else ""
        image = f"image {one.number}" if one.number else f"instance {one.sop_instance_uid}"
        frame = f", frame {self.reference.frames[0]}" if self.reference.frames else ""
        return f"{series}{image}{frame} (slice {self.place} of {self.slices} from the feet)"


@dataclass(frozen=True)
class Answer:
    """A study's answer, and what of the study it stands on."""

    prediction: StudyPrediction
    headers: StudyHeaders

    judged: tuple[Reference, ...]
    """What has a part in the answer; where nothing was analysed, all that was sent."""

    first_look: FirstLook | None

    @property
    def urgency(self) -> Urgency:
        """Where it belongs in a worklist."""
        if not self.prediction.is_analysed:
            return Urgency.NOT_ANALYSED
        return Urgency.POSITIVE if self.prediction.is_positive else Urgency.REST

    @property
    def derivation(self) -> str:
        """What the score is."""
        slices = self.prediction.analysed_slices
        if (count := min(self.prediction.top_k, slices)) == 1:
            return f"the highest probability of {slices} slices"
        return f"mean of the {count} highest probabilities of {slices} slices"

    def list_notes(self) -> list[str]:
        """What else a reader should know: reasons first, then warnings, files that failed, and series left out."""
        study = self.prediction
        notes = [f"Not analysed [{one.reason}]: {one.message}" for one in study.reasons]
        notes += [f"Warning [{one.reason}]: {one.message}" for one in study.warnings]
        if failed := study.failed:
            notes.append(f"Not judged: {len(failed)} of the files, the first for {_name_error(failed[0])}")
        for one in study.left_out:
            notes.append(f"Left out: a series of {one.slices} images [{one.reason}]: {one.message}")
        return notes


def make_answer(prediction: StudyPrediction, headers: StudyHeaders) -> Answer:
    """Brings the client's answer and the headers of the study's files together."""
    slices = [one for one in prediction.slices if one.is_analysed] or list(prediction.slices)
    judged = refer_to(slices, headers) or tuple(Reference(one) for one in headers.instances.values())
    return Answer(prediction, headers, judged, _find_first_look(prediction, headers))


def make_unjudged(error: StrokeClientError) -> StudyPrediction:
    """The answer of a study that could not be judged at all: not analysed, for the error's reason."""
    return StudyPrediction(
        label="",
        score=0.0,
        threshold=0.0,
        top_k=0,
        positive_label="",
        status=AnalysisStatus.NOT_ANALYSED,
        reasons=(Reason(error.reason or "NOT_JUDGED", str(error)),),
        first_look=None,
        slices=(),
        series=None,
        left_out=(),
        failures=(),
        warnings=(),
        model="",
        version="",
        digest="",
        request_id="",
    )


def refer_to(slices: list[StudySlice], headers: StudyHeaders) -> tuple[Reference, ...]:
    """References to the instances of slices, the frames of one instance together; slices whose files are not among the
    headers are passed over."""
    frames: dict[str, list[int]] = {}
    for one in slices:
        if one.sop_instance_uid in headers.instances:
            frames.setdefault(one.sop_instance_uid, []).extend([one.frame] if one.frame else [])
    return tuple(Reference(headers.instances[uid], tuple(sorted(numbers))) for uid, numbers in frames.items())


def _find_first_look(prediction: StudyPrediction, headers: StudyHeaders) -> FirstLook | None:
    first = prediction.first_look
    if first is None or not (references := refer_to([first], headers)):
        return None
    place = prediction.slices.index(first) + 1
    return FirstLook(references[0], place, len(prediction.slices), first.positive_probability)


def _name_error(one: StudySlice) -> str:
    return one.error.reason if one.error is not None else ""
