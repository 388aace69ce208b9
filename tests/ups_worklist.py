"""A worklist for tests that takes the standard at its word: states, Transaction UIDs, required attributes and status
codes of PS3.18 (chapter 11) and PS3.4 (annex CC)."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

Item = dict[str, Any]

AS_WHOLE = {"UnifiedProcedureStepPerformedProcedureSequence", "ProcedureStepProgressInformationSequence"}
"""What a performer may set here."""

ALWAYS_TOLD = ("SOPClassUID", "SOPInstanceUID", "ProcedureStepState")
"""By a search; everything else where it is asked for."""

PERFORMED = (
    "PerformedWorkitemCodeSequence",
    "PerformedStationNameCodeSequence",
    "PerformedProcedureStepStartDateTime",
    "PerformedProcedureStepEndDateTime",
    "OutputInformationSequence",
)
"""What the state COMPLETED needs (final state P of table CC.2.5-3)."""

CANCELED = ("ProcedureStepCancellationDateTime", "ProcedureStepDiscontinuationReasonCodeSequence")
"""What CANCELED needs (final state X)."""


def tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword):08X}"


def read(item: Item, keyword: str) -> list[Any]:
    found: list[Any] = item.get(tag(keyword), {}).get("Value", [])
    return found


@dataclass
class Task:
    """A workitem."""

    dataset: Item
    transaction: str = ""
    is_deleted: bool = False

    @property
    def state(self) -> str:
        return str(read(self.dataset, "ProcedureStepState")[0])

    @state.setter
    def state(self, value: str) -> None:
        self.dataset[tag("ProcedureStepState")] = {"vr": "CS", "Value": [value]}

    def read(self, *keywords: str) -> Any:
        """The first value of an element of the first item of a sequence, and so on; None where there is none."""
        found: Any = self.dataset
        for keyword in keywords:
            values = read(found, keyword)
            if not values:
                return None
            found = values[0]
        return found


class RefusalError(Exception):
    """A status and a sentence."""

    def __init__(self, status: int, warning: str) -> None:
        super().__init__(warning)
        self.status, self.warning = status, warning


@dataclass
class StrictWorklist:
    """The tasks, and what may be done with them."""

    tasks: dict[str, Task] = field(default_factory=dict)
    subscribers: dict[str, Any] = field(default_factory=dict)
    """Titles, with what tells them; None: nobody listens there."""

    states: list[tuple[str, str]] = field(default_factory=list)
    """Changes in the order in which they were made: UID and state."""

    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, dataset: Dataset) -> Task:
        """Makes a task."""
        task = Task(dataset.to_json_dict())
        assert task.state == "SCHEDULED"
        self.tasks[str(dataset.SOPInstanceUID)] = task
        return task

    def find(self, uid: str) -> Task:
        if uid not in self.tasks:
            raise RefusalError(404, "The Target Workitem was not found.")
        if self.tasks[uid].is_deleted:
            raise RefusalError(410, "The Target Workitem once existed, but no longer exists.")
        return self.tasks[uid]

    def search(self, query: dict[str, str]) -> list[Item]:
        """Tasks that match; keys that it does not know are refused."""
        first, most = int(query.pop("offset", "0")), int(query.pop("limit", "1000"))
        told = {tag(name) for name in (*ALWAYS_TOLD, *query.pop("includefield", "").split(",")) if name}
        found = [task.dataset for task in self.tasks.values() if not task.is_deleted and matches(task, query)]
        return [{name: one[name] for name in told & one.keys()} for one in found[first : first + most]]

    def update(self, uid: str, transaction: str, changes: Item) -> None:
        """11.6 and CC.2.6.2."""
        check_dataset(changes)
        task = self.find(uid)
        if task.state in ("COMPLETED", "CANCELED"):
            raise RefusalError(400, "The submitted request is inconsistent with the current state of the Workitem.")
        if task.state == "SCHEDULED":
            raise RefusalError(409, "The target URI did not reference a claimed Workitem.")
        if not transaction:
            raise RefusalError(400, "The Transaction UID is missing.")
        if transaction != task.transaction or read(changes, "TransactionUID") not in ([], [transaction]):
            raise RefusalError(400, "The Transaction UID is incorrect.")
        changes.pop(tag("TransactionUID"), None)
        if not changes.keys() <= set(map(tag, AS_WHOLE)):
            raise RefusalError(400, "Attributes that a performer does not set.")
        task.dataset |= changes

    def change_state(self, uid: str, change: Item) -> bool:
        """11.7 and CC.2.1. Returns whether there was something to change."""
        check_dataset(change)
        if change.keys() != {tag("ProcedureStepState"), tag("TransactionUID")}:
            raise RefusalError(400, "The Transaction UID is missing.")
        (state,), (transaction,) = read(change, "ProcedureStepState"), read(change, "TransactionUID")
        task = self.find(uid)
        if state not in ("IN PROGRESS", "COMPLETED", "CANCELED"):
            raise RefusalError(400, "The submitted request is inconsistent with the state of the UPS Instance.")
        if state == task.state != "IN PROGRESS":
            return False  # with a warning
        allowed = {"IN PROGRESS": "SCHEDULED", "COMPLETED": "IN PROGRESS", "CANCELED": "IN PROGRESS"}
        if allowed[state] != task.state:
            raise RefusalError(409, "The submitted request is inconsistent with the state of the UPS Instance.")
        if state == "IN PROGRESS":
            task.transaction = transaction
        elif transaction != task.transaction:
            raise RefusalError(400, "The Transaction UID is incorrect.")
        elif lacking := find_lacking(task, state):
            raise RefusalError(409, f"Final state requirements are not met: {lacking}")
        task.state = state
        self.states.append((uid, state))
        return True

    def request_cancel(self, uid: str, request: Item) -> None:
        """11.8 and CC.2.2: of a task that is in progress, its performer is told, if that can be."""
        task = self.find(uid)
        if task.state == "COMPLETED":
            raise RefusalError(409, "The UPS is already COMPLETED.")
        if task.state == "IN PROGRESS":
            tell = next((tell for tell in self.subscribers.values() if tell is not None), None)
            if tell is None:
                raise RefusalError(409, "The performer cannot be contacted.")
            event = {tag("EventTypeID"): {"vr": "US", "Value": [2]}}
            event[tag("AffectedSOPInstanceUID")] = {"vr": "UI", "Value": [uid]}
            tell(json.dumps(event | request))
        if task.state == "SCHEDULED":
            task.state = "CANCELED"
            self.states += [(uid, "IN PROGRESS"), (uid, "CANCELED")]


def matches(task: Task, query: dict[str, str]) -> bool:
    """By the keys of table CC.2.5-3 that are used here."""
    for key, value in query.items():
        if key in ("ScheduledWorkitemCodeSequence.CodeValue", "ScheduledStationNameCodeSequence.CodeValue"):
            found = task.read(*key.split("."))
        elif key in ("ProcedureStepState", "InputReadinessState", "WorklistLabel"):
            found = task.read(key)
        else:
            raise RefusalError(400, f"{key} is no key")
        if found != value:
            return False
    return True


def find_lacking(task: Task, state: str) -> list[str]:
    """What a final state needs and is not there."""
    if state == "COMPLETED":
        of, wanted = "UnifiedProcedureStepPerformedProcedureSequence", PERFORMED
    else:
        of, wanted = "ProcedureStepProgressInformationSequence", CANCELED
    return [keyword for keyword in wanted if task.read(of, keyword) is None]


def check_dataset(dataset: Item) -> None:
    """Whether it is DICOM JSON, with the value representations of the dictionary."""
    if not isinstance(dataset, dict):
        raise RefusalError(400, "It is no data set.")
    for name, element in dataset.items():
        if len(name) != 8 or element.get("vr") != dictionary_VR(int(name, 16)):
            raise RefusalError(400, f"{name} has another VR")
        for value in element.get("Value", []):
            if element["vr"] == "SQ":
                check_dataset(value)
