"""The queue's folder: where a study is tells how far it has come.

    receiving/STUDY/     its instances, as they come
    waiting/JOB/         complete, to be judged
    sending/JOB/         its results, and which of them is where by now (journal.json)
    performing/TASK/     a task of a worklist that was claimed (gateway/perform/claim.py)
    failed/JOB/          what was given up, and why (reason.json)
    results/JOB.json     a line of the worklist
    done/STUDY.json      which results of it were delivered, by their UIDs

A study goes on by one rename, so that it is never in two places and never in none. STUDY is the first half
of the SHA-256 of its StudyInstanceUID, so that no name of a file comes from a sender; JOB has the time added.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import time
from pathlib import Path

from gateway.queue.files import PART, make_folder, remove_folder

STATES = ("receiving", "waiting", "sending", "performing", "failed", "results", "done")
KEY_LENGTH = 32
SHOWN = 12
"""Characters of a key that the log shows."""


class QueueError(Exception):
    """The folder cannot be used as a queue; the message says why."""


def make_key(uid: str) -> str:
    """What a study or an instance is called on disk."""
    return hashlib.sha256(uid.encode()).hexdigest()[:KEY_LENGTH]


def make_job(study: str) -> str:
    """A name for what came of a study up to now, later ones after earlier ones."""
    return f"{study}-{time.time_ns():020d}"


def find_study(job: str) -> str:
    """The key of the study of a job."""
    return job.partition("-")[0]


def show(name: str) -> str:
    """A study or a job as the log names it."""
    return name[:SHOWN]


class QueueFolder:
    """Opens a queue for this process alone, and makes it where there is none.

    Raises:
        QueueError: another process has it, others may look into it, or it cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.receiving, self.waiting, self.sending, self.performing, self.failed, self.results, self.done = (
            root / state for state in STATES
        )
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = root.stat()
            if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid != os.geteuid():
                raise QueueError(f"{root}: others may look into it: chmod 700, and chown to who runs this")
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for state in STATES:
                make_folder(root / state)
        except OSError as error:
            raise QueueError(f"{root}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QueueError(f"{root}: another process has this queue") from None
        self.root = root
        self._sweep()

    def count(self) -> dict[str, int]:
        """How much is in each state."""
        return {state: sum(1 for _ in (self.root / state).iterdir()) for state in STATES}

    def list_jobs(self, state: Path) -> list[str]:
        """Jobs in a state, the first complete one first."""
        return sorted((one.name for one in state.iterdir() if not one.name.endswith(PART)), key=find_time)

    def find_free_bytes(self) -> int:
        """What the disk has left for this user."""
        usage = os.statvfs(self.root)
        return usage.f_bavail * usage.f_frsize

    def close(self) -> None:
        """Lets another process have it."""
        os.close(self._lock)

    def _sweep(self) -> None:
        """Removes what was being written when a process ended, and studies whose results are already written down."""
        for part in self.root.rglob(f"*{PART}"):
            remove_folder(part) if part.is_dir() else part.unlink(missing_ok=True)
        for job in self.list_jobs(self.waiting):
            if (self.sending / job).exists():
                remove_folder(self.waiting / job)


def find_time(job: str) -> str:
    """When a job was made, as text that sorts."""
    return job.partition("-")[2]
