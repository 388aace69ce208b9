"""How a job ends: delivered and remembered, or kept for a while with the reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.queue.files import move_folder, read_record, remove_folder, write_record
from gateway.queue.folder import QueueFolder, find_study

REASON = "reason.json"
DAY = 86_400.0


class Endings:
    """Ends jobs. Methods may be called from several threads.

    Args:
        folder: the queue.
        keep_days: how long it is remembered what was delivered.
        keep_failed_days: how long failures stay; 0: not at all.
    """

    def __init__(self, folder: QueueFolder, keep_days: float, keep_failed_days: float) -> None:
        self._folder, self._keep_days, self._keep_failed_days = folder, keep_days, keep_failed_days
        self._lock = threading.Lock()

    def remember(self, job: str, identity: Sequence[str]) -> None:
        """Writes down that results were delivered.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            path = self._folder.done / f"{find_study(job)}.json"
            write_record(path, sorted(read_identities(path) | {tuple(identity)}))

    def recall(self, job: str) -> set[tuple[str, ...]]:
        """Which results of a job's study were delivered."""
        with self._lock:
            return read_identities(self._folder.done / f"{find_study(job)}.json")

    def fail(self, folder: Path, reason: str, message: str) -> None:
        """Puts a job to the failures, with the reason.

        Raises:
            OSError: it cannot be written or moved; the job is where it was.
        """
        if not self._keep_failed_days:
            remove_folder(folder)
            return
        write_record(folder / REASON, {"reason": reason, "message": message, "from": folder.parent.name})
        move_folder(folder, self._folder.failed / folder.name)

    def expire(self) -> int:
        """Removes what has been kept for long enough; returns how many failures."""
        now = time.time()
        for state in (self._folder.done, self._folder.results):
            for path in list_older(state, now - self._keep_days * DAY):
                path.unlink(missing_ok=True)
        failures = list(list_older(self._folder.failed, now - self._keep_failed_days * DAY))
        for path in failures:
            remove_folder(path)
        return len(failures)


def read_identities(path: Path) -> set[tuple[str, ...]]:
    """What was delivered for a study."""
    record = read_record(path)
    return {tuple(map(str, one)) for one in record if isinstance(one, list)} if isinstance(record, list) else set()


def list_older(folder: Path, when: float) -> Iterator[Path]:
    """What in a folder has not changed since."""
    for path in list(folder.iterdir()):
        try:
            if path.stat().st_mtime < when:
                yield path
        except OSError:
            continue  # it has just gone
