"""Studies that are arriving: an instance is on disk before it is answered; a study is complete when nobody sends."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.queue.files import make_folder, move_folder, write_whole
from gateway.queue.folder import QueueFolder, make_job, make_key
from gateway.queue.notes import NOTHING, Notes, merge_missing, write_notes
from gateway.queue.steps import Steps

NOT_KEPT = "not-kept.jsonl"
"""Instances of a study that were taken and not kept, a line each."""

OPEN_FACTOR = 3
"""A study of which a sender still has its association open may be quiet for so many times as long: scanners pause
between series, and archives between disks."""


class DiskFullError(Exception):
    """There is no room for another instance."""


@dataclass
class Arrival:
    """A study that is arriving."""

    last: float
    """When the last instance came (monotonic)."""

    writers: int = 0
    """Instances that are being written."""

    senders: dict[int, Callable[[], bool]] = field(default_factory=dict)
    """Whether each association that sent last for this study is still open."""

    holds: int = 0
    """Fetches from the archive that are under way; it is not complete before they end."""

    is_asked: bool = False
    """Whether the archive has been asked for what is missing."""

    is_fetched: bool = False
    """Whether the archive has said that this is all."""

    notes: Notes = NOTHING
    """What fetches have to say."""

    looked: tuple[float, int] | None = None
    """What had come, and what had been told of steps, when these were last looked at."""


class Arrivals:
    """Takes instances, and hands over studies. Methods may be called from several threads.

    Args:
        folder: the queue.
        steps: what scanners have told of.
        quiet: seconds without an instance after which a study is complete.
        least_free: bytes that the disk must have left, so that results can still be written.
        asks_archive: whether a study that has become quiet is handed to whoever asks the archive (``hold_quiet``).
    """

    def __init__(
        self, folder: QueueFolder, steps: Steps, quiet: float, least_free: int, *, asks_archive: bool = False
    ) -> None:
        self._folder, self._steps, self._quiet, self._least_free = folder, steps, quiet, least_free
        self._asks_archive = asks_archive
        self._lock = threading.Lock()
        # After a restart the senders have as long as ever to go on.
        self._studies = {path.name: Arrival(time.monotonic()) for path in folder.receiving.iterdir()}

    def put(self, study: str, sop: str, file: bytes, sender: int, is_open: Callable[[], bool]) -> None:
        """Writes an instance; one that was there is replaced.

        Args:
            study: StudyInstanceUID.
            sop: SOPInstanceUID.
            file: the instance as a DICOM file.
            sender: identifies the association.
            is_open: whether the association is still there.

        Raises:
            DiskFullError: there is no room.
            OSError: it cannot be written. In both cases nothing of it is left.
        """
        if self._folder.find_free_bytes() - len(file) < self._least_free:
            raise DiskFullError
        with self._writing(study, sender, is_open) as folder:
            write_whole(folder / f"{make_key(sop)}.dcm", file)

    def note_not_kept(self, study: str, series: str, sop_class: str, sender: int, is_open: Callable[[], bool]) -> None:
        """Writes down that an instance came that is not judged.

        Raises:
            OSError: it cannot be written.
        """
        line = json.dumps({"series": series, "class": sop_class}) + "\n"
        with self._writing(study, sender, is_open) as folder:
            descriptor = os.open(folder / NOT_KEPT, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "a") as file:
                file.write(line)

    @contextmanager
    def _writing(self, study: str, sender: int, is_open: Callable[[], bool]) -> Iterator[Path]:
        """Keeps the study's folder where it is."""
        key = make_key(study)
        with self._lock:
            arrival = self._studies.setdefault(key, Arrival(time.monotonic()))
            arrival.writers += 1
            for other in self._studies.values():
                other.senders.pop(sender, None)  # it has gone on to another study
            arrival.senders[sender] = is_open
        try:
            folder = self._folder.receiving / key
            if not folder.is_dir():
                make_folder(folder)
            yield folder
        finally:
            with self._lock:
                arrival.writers -= 1
                arrival.last = time.monotonic()

    def complete(self) -> list[str]:
        """Moves what is complete to the studies that wait; returns their jobs.

        Raises:
            OSError: a study cannot be moved; it is where it was.
        """
        with self._lock:
            idle = {key: one.last for key, one in self._studies.items() if not one.writers and not one.holds}
        jobs = []
        for key, last in idle.items():
            if self._has_all(key, last) or self._is_due(key):
                with self._lock:
                    arrival = self._studies[key]
                    if not arrival.writers and not arrival.holds and arrival.last == last:
                        jobs += self._hand_over(key, arrival)
                        del self._studies[key]
        return jobs

    def hold_quiet(self) -> list[str]:
        """Studies that have become quiet, each once: they are held until the archive has been asked and ``release``."""
        if not self._asks_archive:
            return []
        with self._lock:
            quiet = [key for key, one in self._studies.items() if not one.is_asked and self._is_quiet(one)]
        return [self.hold(key) for key in quiet]

    def hold(self, key: str) -> str:
        """Has a study, perhaps one of which nothing has come, wait for ``release``; returns its key."""
        with self._lock:
            arrival = self._studies.setdefault(key, Arrival(time.monotonic()))
            arrival.is_asked = True
            arrival.holds += 1
        return key

    def release(self, key: str, notes: Notes, *, is_fetched: bool) -> None:
        """Ends a hold.

        Args:
            key: of the study.
            notes: what its results are to say.
            is_fetched: whether what is here is all that the archive has.
        """
        with self._lock:
            arrival = self._studies[key]
            arrival.holds -= 1
            arrival.is_fetched = is_fetched
            missing = merge_missing(notes.missing, arrival.notes.missing)
            arrival.notes = Notes(missing, tuple(dict.fromkeys(arrival.notes.doubts + notes.doubts)))

    def list_here(self, key: str) -> frozenset[str]:
        """Keys of the instances of a study that are here."""
        return frozenset(path.stem for path in (self._folder.receiving / key).glob("*.dcm"))

    def _has_all(self, key: str, last: float) -> bool:
        """Whether all has come that scanners have told of; asked again when there is news."""
        with self._lock:
            news = (last, self._steps.changes)
            if self._studies[key].looked == news:
                return False
            self._studies[key].looked = news
        return self._steps.knows(key) and self._steps.look(key, self.list_here(key)).is_complete

    def _is_due(self, key: str) -> bool:
        with self._lock:
            arrival = self._studies[key]
            is_asked = arrival.is_asked or not self._asks_archive
            return arrival.is_fetched or (is_asked and self._is_quiet(arrival))

    def _is_quiet(self, arrival: Arrival) -> bool:
        if arrival.writers or arrival.holds:
            return False
        is_open = any(one() for one in arrival.senders.values())
        return time.monotonic() - arrival.last >= self._quiet * (OPEN_FACTOR if is_open else 1)

    def _hand_over(self, key: str, arrival: Arrival) -> list[str]:
        """Each step may be the last of this process: at the next start all of them are done again, and say the same."""
        folder = self._folder.receiving / key
        if not folder.is_dir():  # its first instance found no room, or the archive had nothing
            return []
        here = self.list_here(key)
        told = self._steps.look(key, here).notes
        missing = merge_missing(arrival.notes.missing, told.missing)
        write_notes(folder, Notes(missing, arrival.notes.doubts + told.doubts, told.is_wrong_entry))
        self._steps.settle(key, here)
        job = make_job(key)
        move_folder(folder, self._folder.waiting / job)
        return [job]

    @property
    def count(self) -> int:
        """Studies that are arriving."""
        with self._lock:
            return len(self._studies)


def read_not_kept(folder: Path) -> dict[str, int]:
    """Instances that came and were not kept, by their series."""
    found: dict[str, int] = {}
    try:
        lines = (folder / NOT_KEPT).read_text("utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            series = json.loads(line)["series"]
        except (ValueError, KeyError, TypeError):
            continue  # a line that the end of a process has cut
        found[series] = found.get(series, 0) + 1
    return found
