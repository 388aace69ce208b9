"""A task as the worklist describes it: its state, whom and what it is meant for, and what it is about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pydicom.sr.coding import Code
from pydicom.valuerep import DT

from gateway.perform.datasets import Item, read_codes, read_items, read_text

UID = re.compile(r"(?=.{1,64}$)[0-9]+(?:\.[0-9]+)*")
"""PS3.5, 9.1; it becomes a part of a path, where dots alone would mean something else."""

MOST_SOURCES = 1000
"""Series, or lists of instances, of one task."""

MOST_INSTANCES = 20_000


class State(StrEnum):
    """Of a procedure step (PS3.4, CC.1.1)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


class WorkitemError(Exception):
    """It is no task that could be claimed; the message has nothing of its content."""


@dataclass(frozen=True)
class Source:
    """Instances that a task is about."""

    study: str
    series: str = ""
    """Empty: the whole study."""

    instances: frozenset[str] = frozenset()
    """UIDs; none: the whole series."""

    url: str = ""
    """Where the worklist says that they are; empty: it says nothing."""


@dataclass(frozen=True)
class Workitem:
    """A task (a Unified Procedure Step)."""

    uid: str
    state: State
    is_ready: bool
    """Whether its images are there."""

    rank: int
    """By its priority: 0 is the most urgent."""

    start: str
    """When it is to be performed, as DICOM writes moments; empty where it says nothing."""

    label: str
    codes: tuple[Code, ...]
    """What is to be done."""

    stations: tuple[Code, ...]
    """By whom; none: by anybody."""

    sources: tuple[Source, ...]

    def is_due(self, now: datetime) -> bool:
        """Whether its time has come; where it says none, or none that can be read, it has."""
        try:
            start = DT(self.start)
            return not isinstance(start, DT) or start.astimezone(UTC) <= now
        except (ValueError, OverflowError):
            return True


def read_workitem(item: Item) -> Workitem:
    """Reads a task.

    Raises:
        WorkitemError: it has no UID, no state, or more images than any study.
    """
    uid, state = read_text(item, "SOPInstanceUID"), read_text(item, "ProcedureStepState")
    if UID.fullmatch(uid) is None or state not in list(State):
        raise WorkitemError("it has no UID, or is in no state")
    ranks = {"HIGH": 0, "MEDIUM": 1, "LOW": 2}
    return Workitem(
        uid=uid,
        state=State(state),
        is_ready=read_text(item, "InputReadinessState") in ("READY", ""),
        rank=ranks.get(read_text(item, "ScheduledProcedureStepPriority"), 1),
        start=read_text(item, "ScheduledProcedureStepStartDateTime"),
        label=read_text(item, "WorklistLabel"),
        codes=read_codes(item, "ScheduledWorkitemCodeSequence"),
        stations=read_codes(item, "ScheduledStationNameCodeSequence"),
        sources=_list_sources(item),
    )


def _list_sources(item: Item) -> tuple[Source, ...]:
    """What the input information sequence names (PS3.3, table 10-3b); if it is empty, the studies of the requests."""
    items = read_items(item, "InputInformationSequence")
    found = [_read_source(one) for one in items if read_text(one, "TypeOfInstances") in ("DICOM", "")]
    if not items:
        requests = read_items(item, "ReferencedRequestSequence")
        found = [Source(read_text(one, "StudyInstanceUID")) for one in requests]
    found = [one for one in found if one.study]
    if len(found) > MOST_SOURCES or sum(len(one.instances) for one in found) > MOST_INSTANCES:
        raise WorkitemError("it names more images than any study has")
    for one in found:
        if not all(map(UID.fullmatch, (one.study, *filter(None, [one.series]), *one.instances))):
            raise WorkitemError("a UID of its images is none")
    return tuple(dict.fromkeys(found))


def _read_source(item: Item) -> Source:
    series = read_text(item, "SeriesInstanceUID")
    references = read_items(item, "ReferencedSOPSequence")
    urls = [read_text(one, "RetrieveURL") for one in read_items(item, "WADORSRetrievalSequence")]
    instances = frozenset(filter(None, (read_text(one, "ReferencedSOPInstanceUID") for one in references)))
    return Source(read_text(item, "StudyInstanceUID"), series, instances, next(iter(urls), ""))
