"""What is on disk of a task that was claimed, so that it goes on, or is ended, after whatever ends this process.

    performing/TASK/claim.json     which task it is, its Transaction UID, how far it has come; before it is claimed
    performing/TASK/cancel.json    somebody wants it canceled
    performing/TASK/input/         its images, until they are judged
    performing/TASK/results/       its results, until the archive and the worklist have them

TASK is the first half of the SHA-256 of the task's UID.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydicom.sr.coding import Code

from gateway.perform.workitem import State
from gateway.queue.files import make_folder, read_record, remove_folder, write_record
from gateway.queue.folder import QueueFolder, make_key

CLAIM, CANCEL = "claim.json", "cancel.json"
INPUT, RESULTS = "input", "results"


class Step(StrEnum):
    """How far a task has come."""

    CLAIMING = "claiming"
    """Whether the worklist has heard of it is not known."""

    CLAIMED = "claimed"
    JUDGED = "judged"
    """Its results are written down."""

    STORED = "stored"
    """The archive has them."""


@dataclass(frozen=True)
class Ending:
    """How a task ends."""

    state: State
    code: str = ""
    """Of CANCELED, its reason: value, scheme and meaning of a code, with ^ between them."""

    text: str = ""


@dataclass(frozen=True)
class Claim:
    """A task that was claimed, or is being."""

    worklist: str
    """Its URL."""

    workitem: str
    transaction: str
    made: float
    """When, in seconds since 1970."""

    step: Step = Step.CLAIMING
    ending: Ending | None = None
    job: str = ""
    """Of its results, as the queue names them; set when all its images are there."""

    not_kept: dict[str, int] = field(default_factory=dict)
    """Instances that are no CT images, by their series."""

    identity: tuple[str, ...] = ()
    """UIDs of its results."""

    @property
    def key(self) -> str:
        """What it is called on disk, and in the log."""
        return make_key(self.workitem)

    @property
    def age(self) -> float:
        """Seconds since it was claimed."""
        return time.time() - self.made


class Claims:
    """The tasks in a queue. Methods may be called from several threads, for each task by one at a time.

    Args:
        folder: the queue.
    """

    def __init__(self, folder: QueueFolder) -> None:
        self._root = folder.performing

    def find(self, claim: Claim) -> Path:
        """The folder of a task."""
        return self._root / claim.key

    def begin(self, worklist: str, workitem: str) -> Claim:
        """Writes down that a task is going to be claimed, with a Transaction UID that nobody else has.

        Raises:
            OSError: it cannot be written.
        """
        claim = Claim(worklist, workitem, f"2.25.{uuid4().int}", time.time())
        make_folder(self.find(claim))
        return self.write(claim)

    def write(self, claim: Claim, **changes: Any) -> Claim:
        """Writes down how far a task has come, and gives it back so.

        Raises:
            OSError: it cannot be written.
        """
        claim = replace(claim, **changes)
        write_record(self.find(claim) / CLAIM, asdict(claim))
        return claim

    def remove(self, claim: Claim) -> None:
        """Forgets a task with which nothing is left to be done."""
        remove_folder(self.find(claim))

    def list(self) -> list[Claim]:
        """All tasks, the first claimed one first; what cannot be read is removed, since nothing was claimed with it, or
        somebody has changed it."""
        found = []
        for folder in list(self._root.iterdir()):
            claim = read_claim(folder)
            if claim is None or claim.key != folder.name:
                remove_folder(folder)
            else:
                found.append(claim)
        return sorted(found, key=lambda claim: claim.made)

    def __contains__(self, workitem: str) -> bool:
        """Whether a task is among them."""
        return (self._root / make_key(workitem)).exists()

    def ask_to_cancel(self, workitem: str, code: Code | None, text: str) -> bool:
        """Writes down that somebody wants a task canceled. Returns whether it is one of these.

        Raises:
            OSError: it cannot be written.
        """
        if workitem not in self:
            return False
        ending = Ending(State.CANCELED, write_reason(code) if code else "", text)
        write_record(self._root / make_key(workitem) / CANCEL, asdict(ending))
        return True

    def find_cancel(self, claim: Claim) -> Ending | None:
        """How a task is to end that somebody wants canceled; None: nobody does."""
        return read_ending(read_record(self.find(claim) / CANCEL))


def write_reason(code: Code) -> str:
    """A code as a claim has it."""
    return "^".join((code.value, code.scheme_designator, code.meaning.replace("^", " ")))


def read_reason(text: str) -> Code:
    """The code that ``write_reason`` has written."""
    value, scheme, meaning = text.split("^", 2)
    return Code(value, scheme, meaning)


def read_claim(folder: Path) -> Claim | None:
    """Reads it; None: there is none that this program has written."""
    record = read_record(folder / CLAIM)
    try:
        claim = Claim(**record)
        step, ending = Step(claim.step), read_ending(claim.ending)
        return replace(claim, step=step, ending=ending, made=float(claim.made), identity=tuple(claim.identity))
    except (TypeError, ValueError):
        return None


def read_ending(record: Any) -> Ending | None:
    """Reads it; None: there is none."""
    try:
        ending = Ending(**record)
        return replace(ending, state=State(ending.state))
    except (TypeError, ValueError):
        return None
