"""One file of a study, in the hands of a worker: what its header says, and what comes of its slices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from server.admission.call import Call
from server.admission.ids import printable_id
from server.admission.inbox import Held
from server.admission.judge import Judge, RoutedImage
from server.admission.status import Status, to_status
from server.core.detector import Detection, check_digest
from server.core.study.facts import SliceFacts, read_facts
from server.core.study.rules import SeriesRules
from server.core.study.slices import Refusal, StudySlice
from server.errors import ImageError, StrokeError
from server.images.image_file import ImageLimits
from server.models.family import Choice, Route
from server.models.runtime import OnnxModel

LOSSY = "IMAGE_LOSSY"
INDETERMINATE = "INDETERMINATE"
"""Of a slice that is nearer to the threshold of single images than the model would have it. In a study it gets no label
anyway, and its probability counts as any other."""


@dataclass(frozen=True)
class SliceToJudge:
    """One file of a study. Model, version and the study's id are read of the first one."""

    image: bytes
    id: str = ""
    image_sha256: str = ""
    model_name: str = ""
    model_version: str = ""
    study_id: str = ""
    held: Held | None = None
    """Its message, which is released once the file is through."""


def release(one: SliceToJudge) -> None:
    """Lets go of a file's message."""
    if one.held is not None:
        one.held.release()


@dataclass(frozen=True)
class Seen:
    """What a first look at a file has shown."""

    slices: Sequence[StudySlice]
    """What is done with."""

    frames: Sequence[SliceFacts]
    """What is still to be judged: of a file with several frames each is work of its own, so that others have their
    turns between them."""


class SliceWork:
    """Looks at the files of one study. Safe to use by many workers.

    Attributes:
        model: what judges all of them.
    """

    def __init__(self, judge: Judge, call: Call, limits: ImageLimits, rules: SeriesRules, choice: Choice) -> None:
        self.model: OnnxModel = choice.served.model
        self._judge, self._call, self._limits, self._rules = judge, call, limits, rules
        self._route = Route(choice)

    def look(self, one: SliceToJudge, number: int) -> Seen:
        """Reads the header of a file, the ``number``-th of its study, and judges it where it is one slice."""
        try:
            frames = read_facts(one.image, self._limits, self._rules)
        except ImageError as error:
            return Seen([self._refuse(one, number, error)], ())
        if frames is None:
            return Seen([self.judge(one, number, None)], ())
        rest = [facts for facts in frames if facts.exclusion is None]
        if len(frames) == len(rest) == 1:
            return Seen([self.judge(one, number, rest[0])], ())
        try:
            if one.image_sha256 and len(rest) < len(frames):  # that of others is checked when they are judged
                check_digest(one.image_sha256, hashlib.sha256(one.image).hexdigest())
        except StrokeError as error:
            return Seen([self._refuse(one, number, error)], ())
        name = find_name(one, number)
        left_out = [
            StudySlice(id=name, number=number, frame=facts.frame, facts=facts) for facts in frames if facts.exclusion
        ]
        return Seen(left_out, rest)

    def judge(self, one: SliceToJudge, number: int, facts: SliceFacts | None) -> StudySlice:
        """Judges a file, or a frame of one; ``facts`` are of its header, None where it has none."""
        spec = self.model.spec
        frame = facts.frame if facts else 0
        name = find_name(one, number)
        names = (spec.name, spec.version, one.image_sha256, one.id or name)
        request = RoutedImage(one.image, *names, frame, route=self._route)
        outcome = self._judge.judge_here(request, self._call, self._call.request_id)
        if isinstance(outcome, Status):
            is_altered = outcome.code == "DATA_LOSS"  # so its header may be, too
            refusal = Refusal(outcome.code, outcome.reason, outcome.message, outcome.retry_after_ms)
            return StudySlice(id=name, number=number, frame=frame, facts=None if is_altered else facts, refusal=refusal)
        return StudySlice(
            id=name,
            number=number,
            frame=frame,
            facts=facts,
            image_sha256=outcome.image_sha256,
            probability=outcome.positive_probability,
            positive_probabilities=tuple(outcome.probabilities[index] for index in spec.positive_indices),
            other_label=find_other_label(outcome),
            reasons=tuple(reason for reason in outcome.reasons if reason.reason != INDETERMINATE),
            is_lossy=any(warning.reason == LOSSY for warning in outcome.warnings),
        )

    def _refuse(self, one: SliceToJudge, number: int, error: StrokeError) -> StudySlice:
        """A file that is none of any series. It is judged as any other, which refuses it by its own reason and tells
        those who count; should it not, what was found here is why it has no part in the study."""
        refused = self.judge(one, number, None)
        if refused.refusal is not None:
            return refused
        status = to_status(error, self._call.request_id)
        refusal = Refusal(status.code, status.reason, status.message)
        return StudySlice(id=refused.id, number=number, image_sha256=refused.image_sha256, refusal=refusal)


def find_name(one: SliceToJudge, number: int) -> str:
    """What a slice is called in the answer: by its caller, otherwise by its number."""
    return printable_id(one.id) or str(number)


def find_other_label(detection: Detection) -> int:
    """Index of the most probable label that is not positive."""
    positive = detection.model.spec.positive_indices
    others = [index for index in range(len(detection.probabilities)) if index not in positive]
    return max(others, key=detection.probabilities.__getitem__)
