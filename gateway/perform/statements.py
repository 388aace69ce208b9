"""What the worklist is told of a task: how far it has come, what was made of it, or why it was ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from gateway.perform.claim import Ending, read_reason
from gateway.perform.datasets import write_code
from gateway.results.identity import to_ascii

DETECTION = Code("110004", "DCM", "Computer Aided Detection")
UNSPECIFIED = Code("110513", "DCM", "Discontinued for unspecified reason")
INCOMPLETE = Code("110523", "DCM", "Object Set incomplete")
MALFORMED = Code("110521", "DCM", "Objects incorrectly formatted")
NOT_SUPPORTED = Code("110522", "DCM", "Object Types not supported")
INADEQUATE = Code("110527", "DCM", "Resource inadequate")
"""Of PS3.16, CID 9231 and 9300."""

MOST_TEXT = 1024


@dataclass(frozen=True)
class Output:
    """A result that the archive has."""

    study: str
    series: str
    sop_class: str
    sop: str


def read_outputs(folder: Path) -> list[Output]:
    """What the results in a folder are, by their own headers."""
    found = []
    for path in sorted(folder.glob("*.dcm")):
        one = pydicom.dcmread(path, stop_before_pixels=True)
        found.append(Output(one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPClassUID, one.SOPInstanceUID))
    return found


def state_progress(percent: int, text: str) -> Dataset:
    """How far it has come (PS3.3, C.30.1)."""
    progress = Dataset()
    progress.ProcedureStepProgress = str(percent)
    progress.ProcedureStepProgressDescription = text
    changes = Dataset()
    changes.ProcedureStepProgressInformationSequence = [progress]
    return changes


def state_end(
    ending: Ending, start: float, work: Code, station: Code, outputs: Iterable[Output], archive: str
) -> Dataset:
    """What a task has to have before it may be in its final state (PS3.4, CC.2.5.1.1).

    Args:
        ending: which state, and why.
        start: when it was begun, in seconds since 1970.
        work: what was done.
        station: by whom.
        outputs: its results.
        archive: URL of the service that has them.
    """
    now = datetime.now(UTC)
    performed = Dataset()
    performed.PerformedWorkitemCodeSequence = [write_code(work)]
    performed.PerformedStationNameCodeSequence = [write_code(station)]
    performed.PerformedProcedureStepStartDateTime = write_moment(datetime.fromtimestamp(start, UTC))
    performed.PerformedProcedureStepEndDateTime = write_moment(now)
    performed.OutputInformationSequence = [_state_output(one, archive) for one in outputs]
    if not ending.code:
        changes = state_progress(100, "done")
    else:
        changes = state_progress(0, "canceled")
        (progress,) = changes.ProcedureStepProgressInformationSequence
        del progress.ProcedureStepProgress  # how far it had come was said before, and is of no use
        progress.ProcedureStepCancellationDateTime = write_moment(now)
        progress.ReasonForCancellation = to_ascii(ending.text, MOST_TEXT)
        progress.ProcedureStepDiscontinuationReasonCodeSequence = [write_code(read_reason(ending.code))]
    changes.UnifiedProcedureStepPerformedProcedureSequence = [performed]
    return changes


def _state_output(one: Output, archive: str) -> Dataset:
    """A reference by which anybody can fetch it (PS3.3, table 10-3b)."""
    reference, retrieval, item = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.sop_class, one.sop
    retrieval.RetrieveURL = f"{archive.rstrip('/')}/studies/{one.study}/series/{one.series}/instances/{one.sop}"
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID, item.SeriesInstanceUID = one.study, one.series
    item.ReferencedSOPSequence = [reference]
    item.WADORSRetrievalSequence = [retrieval]
    return item


def write_moment(moment: datetime) -> str:
    """A moment as DICOM writes it (DT), with its offset from UTC."""
    return moment.strftime("%Y%m%d%H%M%S%z")
