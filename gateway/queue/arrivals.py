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


class Arrivals:
    """Takes instances, and hands over studies. Methods may be called from several threads.

    Args:
        folder: the queue.
        quiet: seconds without an instance after which a study is complete.
        least_free: bytes that the disk must have left, so that results can still be written.
    """

    def __init__(self, folder: QueueFolder, quiet: float, least_free: int) -> None:
        self._folder, self._quiet, self._least_free = folder, quiet, least_free
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
        """Moves what is complete to the studies that wait; returns their jobs."""
        with self._lock:
            due = [key for key, arrival in self._studies.items() if self._is_due(arrival)]
            jobs = []
            for key in due:
                del self._studies[key]
                if (self._folder.receiving / key).is_dir():  # not when its first instance found no room
                    job = make_job(key)
                    move_folder(self._folder.receiving / key, self._folder.waiting / job)
                    jobs.append(job)
        return jobs

    def _is_due(self, arrival: Arrival) -> bool:
        if arrival.writers:
            return False
        is_open = any(one() for one in arrival.senders.values())
        return time.monotonic() - arrival.last >= self._quiet * (OPEN_FACTOR if is_open else 1)

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
