"""What has come of calls and images: told once, to all that keep something of it (log, metrics, audit).

Every transport tells it in the same words, so that all count alike. No pixel, no file name and no text of a caller's
own but its id is in it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.core.detector import Detection
from server.core.study.answer import StudyAnswer
from server.process.log_lines import Entry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    peer: str
    """The connection, as the transport names it, such as ``ipv4:127.0.0.1:40000``."""

    name: str = ""
    """The client, by its certificate or token; empty: nobody has said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a call, of an image, or of both: a call of one image ends with it."""

    method: str
    """As callers name it, such as ``Predict``."""

    request_id: str
    """Printable; also in the answer."""

    caller: Caller
    code: str = "OK"
    """gRPC's name of the status; another transport uses the same."""

    reason: str = ""
    """Why it is not OK; empty when it is."""

    started: float
    """Arrival, in seconds of ``time.monotonic``."""

    ended: float = field(default_factory=time.monotonic)
    """The same; now, unless told."""

    is_call: bool = False
    is_image: bool = False
    detection: Detection | None = None
    """The judgement of the image; None: there is none."""

    image_sha256: str = ""
    """Of the image, also of one that was refused; empty where it was not looked at."""

    study_id: str = ""
    """Of the study that the image is a slice of."""

    study: StudyAnswer | None = None
    """The judgement of the study that a call has brought; None: there is none."""

    trace: str = ""
    """The caller's ``traceparent`` (W3C Trace Context), where it has the form of one."""

    @property
    def milliseconds(self) -> float:
        """From arrival to end."""
        return 1000 * (self.ended - self.started)


class Recorder(Protocol):
    """Keeps something of outcomes."""

    def note(self, outcome: Outcome) -> None:
        """Takes an outcome, from any thread, without waiting. Never raises."""


class LogLines:
    """Writes a line for each outcome into the log."""

    def note(self, outcome: Outcome) -> None:
        """See ``Recorder``."""
        if not logger.isEnabledFor(logging.INFO):
            return
        fields: dict[str, str | float] = {"id": outcome.request_id, "code": outcome.code}
        if outcome.reason:
            fields["reason"] = outcome.reason
        if outcome.caller.name:
            fields["client"] = outcome.caller.name
        if outcome.detection is not None:
            spec = outcome.detection.model.spec
            fields["model"] = f"{spec.name}/{spec.version}"
            fields["label"] = outcome.detection.label
        if outcome.study_id:
            fields["study"] = outcome.study_id
        if (study := outcome.study) is not None:
            fields["model"] = f"{study.model.spec.name}/{study.model.spec.version}"
            fields["label"] = study.label
            fields["slices"] = str(len(study.slices))
            fields["left_out"] = str(sum(series.slices for series in study.left_out))
            fields["failures"] = str(len(study.failures))
        fields["ms"] = outcome.milliseconds
        if outcome.trace:
            fields["trace"] = outcome.trace
        text = outcome.method if outcome.is_call else f"{outcome.method} image"
        # Judged images are as many as the processors can judge; of all other calls somebody may send a flood.
        is_work = outcome.is_image and outcome.code == "OK"
        kind = "" if is_work else f"{text} code={outcome.code} reason={outcome.reason}"
        logger.info(Entry(text, fields, kind))


class Journal:
    """Tells outcomes to all recorders."""

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._recorders = tuple(recorders)

    def note(self, outcome: Outcome) -> None:
        """See ``Recorder.note``."""
        for recorder in self._recorders:
            recorder.note(outcome)
