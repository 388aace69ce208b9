"""Procedure steps that scanners have told of (MPPS), on disk: which images of a study there are to come."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Set
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from gateway.queue.files import read_record, write_whole
from gateway.queue.folder import QueueFolder, make_key
from gateway.queue.notes import MOST_NAMED, NOTHING, Missing, Notes
from gateway.reasons import Doubt

MOST_STEPS, MOST_BYTES = 1000, 64_000_000
"""On disk; of more the oldest go, and their studies are complete when nothing comes for a while, as without."""

MOST_OF_STUDY = 16
KEEP_SECONDS = 2 * 86_400.0


class StepState(StrEnum):
    """How far a procedure step has come (PS3.3, C.4.14)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


class StepError(Exception):
    """A step cannot be written down as it was told."""


class StepExistsError(StepError):
    """There is one of that UID."""


class StepUnknownError(StepError):
    """There is none of that UID."""


class StepEndedError(StepError):
    """It has ended, and may not change any more."""


class StepsFullError(StepError):
    """There is no room for it."""


@dataclass(frozen=True)
class Step:
    """A procedure step."""

    studies: tuple[str, ...]
    """Keys of the studies that its images belong to."""

    state: StepState
    series: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """UIDs of its CT images by their series."""

    is_wrong_entry: bool = False
    """Whether it was discontinued since it was made in the name of somebody else."""

    came: tuple[str, ...] = ()
    """Keys of those of its images that have come with earlier jobs of the study."""


@dataclass(frozen=True)
class Outlook:
    """What the steps of a study say of it."""

    is_complete: bool = False
    """Whether all steps have ended, and with what is here now nothing of them is missing any more."""

    notes: Notes = NOTHING


class Steps:
    """Keeps steps. Methods may be called from several threads.

    Args:
        folder: the queue.
        least_free: bytes that the disk must have left.
    """

    def __init__(self, folder: QueueFolder, least_free: int) -> None:
        self._folder, self._least_free = folder, least_free
        self._lock = threading.Lock()
        self._studies: dict[str, tuple[str, ...]] = {}  # of each step, the oldest first
        self._sizes: dict[str, int] = {}
        self.changes = 0
        """Grows whenever something is told."""

        for path in sorted(folder.steps.iterdir(), key=lambda path: path.stat().st_mtime):
            step = read_step(path)
            if step is None:
                path.unlink(missing_ok=True)
            else:
                self._note(path.stem, step, path.stat().st_size)

    def begin(self, uid: str, step: Step) -> None:
        """Writes a new step down.

        Raises:
            StepExistsError: there is one of that UID that says something else.
            StepsFullError: its study has too many, or the disk has no room.
            OSError: it cannot be written.
        """
        key = make_key(uid)
        with self._lock:
            if key in self._studies:
                if read_step(self._find_path(key)) == step:
                    return  # who has heard no answer tells the same again
                raise StepExistsError
            if any(len(self._list_steps(study)) >= MOST_OF_STUDY for study in step.studies):
                raise StepsFullError
            self._write_new(key, step)

    def change(
        self, uid: str, state: StepState | None, series: dict[str, tuple[str, ...]] | None, *, is_wrong_entry: bool
    ) -> Step:
        """Writes down what is told of a step; what is not told is None and stays. Returns the step as it is then.

        Raises:
            StepUnknownError: there is none of that UID.
            StepEndedError: it has ended, and this says something else.
            StepsFullError: the disk has no room.
            OSError: it cannot be written.
        """
        key = make_key(uid)
        with self._lock:
            before = read_step(self._find_path(key)) if key in self._studies else None
            if before is None:
                raise StepUnknownError
            after = replace(
                before,
                state=state or before.state,
                series=before.series if series is None else series,
                is_wrong_entry=is_wrong_entry or before.is_wrong_entry,
            )
            if after != before:
                if before.state is not StepState.IN_PROGRESS:
                    raise StepEndedError
                self._write_new(key, after)
            return after

    def knows(self, study: str) -> bool:
        """Whether there are steps of a study."""
        with self._lock:
            return bool(self._list_steps(study))

    def look(self, study: str, here: Set[str]) -> Outlook:
        """What the steps of a study say of it.

        Args:
            study: its key.
            here: keys of its instances that have come.
        """
        steps = self._read_steps(study)
        if not steps:
            return Outlook()
        missing, was_missing = [], False
        for series, uids in merge_series(steps).items():
            came = {key for step in steps for key in step.came}
            wanted = [uid for uid in uids if make_key(uid) not in came]
            was_missing = was_missing or bool(wanted)
            if gone := [uid for uid in wanted if make_key(uid) not in here]:
                missing.append(Missing(series, len(gone), len(uids), tuple(gone[:MOST_NAMED]), "scanner"))
        states = {step.state for step in steps}
        is_over = StepState.COMPLETED in states and StepState.IN_PROGRESS not in states
        doubts: tuple[tuple[Doubt, str], ...] = ()
        if StepState.DISCONTINUED in states:
            doubts = ((Doubt.STEP_DISCONTINUED, "The scanner has ended the procedure before it was done."),)
        is_wrong = any(step.is_wrong_entry for step in steps)
        return Outlook(is_over and was_missing and not missing, Notes(tuple(missing), doubts, is_wrong))

    def settle(self, study: str, here: Set[str]) -> None:
        """Remembers what of a study is judged now, so that nobody misses it when more comes.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            for key in self._list_steps(study):
                step = read_step(self._find_path(key))
                if step is None:
                    continue
                came = here | set(step.came)
                if step.state is not StepState.IN_PROGRESS:  # until then nobody knows which of them are its own
                    came &= {make_key(uid) for uids in step.series.values() for uid in uids}
                if came != set(step.came):
                    self._write(key, replace(step, came=tuple(sorted(came))))
            self._make_room()

    def expire(self) -> None:
        """Removes what is too old to be of use."""
        with self._lock:
            for key in list(self._studies):
                path = self._find_path(key)
                if not path.exists() or path.stat().st_mtime < time.time() - KEEP_SECONDS:
                    self._drop(key)

    def _read_steps(self, study: str) -> list[Step]:
        with self._lock:
            paths = [self._find_path(key) for key in self._list_steps(study)]
        return [step for step in map(read_step, paths) if step is not None]

    def _list_steps(self, study: str) -> list[str]:
        return [key for key, studies in self._studies.items() if study in studies]

    def _find_path(self, key: str) -> Path:
        return self._folder.steps / f"{key}.json"

    def _write_new(self, key: str, step: Step) -> None:
        """Writes what somebody tells, unless the room is wanted for results.

        Raises:
            StepsFullError: it is.
            OSError: it cannot be written.
        """
        if self._folder.find_free_bytes() < self._least_free:
            raise StepsFullError
        self._write(key, step)
        self._make_room()

    def _write(self, key: str, step: Step) -> None:
        data = json.dumps(asdict(step)).encode()
        write_whole(self._find_path(key), data)
        self._note(key, step, len(data))

    def _note(self, key: str, step: Step, size: int) -> None:
        self._studies.setdefault(key, step.studies)
        self._sizes[key] = size
        self.changes += 1

    def _make_room(self) -> None:
        while len(self._studies) > MOST_STEPS or sum(self._sizes.values()) > MOST_BYTES:
            self._drop(next(iter(self._studies)))

    def _drop(self, key: str) -> None:
        self._find_path(key).unlink(missing_ok=True)
        del self._studies[key], self._sizes[key]


def merge_series(steps: list[Step]) -> dict[str, list[str]]:
    """UIDs of the images of several steps by their series, each once."""
    found: dict[str, dict[str, None]] = {}
    for step in steps:
        for series, uids in step.series.items():
            found.setdefault(series, {}).update(dict.fromkeys(uids))
    return {series: list(uids) for series, uids in found.items()}


def read_step(path: Path) -> Step | None:
    """Reads a step; None: there is none that this program has written."""
    record = read_record(path)
    try:
        return Step(
            tuple(record["studies"]),
            StepState(record["state"]),
            {series: tuple(uids) for series, uids in record["series"].items()},
            bool(record["is_wrong_entry"]),
            tuple(record["came"]),
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
