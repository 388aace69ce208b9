"""Which studies of an Orthanc are to be judged, one after the other, by the gateway's own command.

What is to be done is read from Orthanc's log of changes, and how far that was read is kept in its database: so nothing
is forgotten when Orthanc is stopped, or the server is away for a day, and nothing grows in memory. What came of a study
is kept as its metadata, with a digest of the images that it stands on: so it is judged once, and results that come into
it do not have it judged again.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from strokeserve_gateway import Archive, Gateway, JudgeError, Settings

CURSOR, RECENT = 4713, 4714
"""Global properties: up to where the log of changes is done with, and studies that have been judged lately."""

METADATA = "4713"
"""Metadata of a study: what came of it."""

PAGE, MOST_PENDING, MOST_RECENT = 500, 1000, 200
POLL_SECONDS = 5.0
SETTLE_SECONDS = 60.0
FIRST_PAUSE, MOST_PAUSE = 2.0, 60.0
MOST_IMAGES = 5000
"""So many are written to disk, which is more than the server takes."""

HOUR = 3600.0

JUDGED, GIVEN_UP = "judged", "given up"


@dataclass
class Job:
    """A study that is to be judged."""

    change: int
    """Where the log of changes says so; it is not done with before."""

    due: float = 0.0
    """When to look at it (monotonic)."""

    asked: bool = False
    """A person wants it judged again."""

    first: float = 0.0
    """When it was tried first (monotonic); 0: not yet."""

    tries: int = 0
    reason: str = ""
    """Why it was not judged at the last try."""


@dataclass
class Worker:
    """Judges studies, in a thread of its own.

    Args:
        orthanc: the archive.
        settings: of the plugin.
        note: takes a line for the log, in which nobody is named.

    Raises:
        OSError: there can be no folder for images.
    """

    orthanc: Archive
    settings: Settings
    note: Callable[[str], None]
    wake: threading.Event = field(default_factory=threading.Event)
    """Set where there may be something to do."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._pending: dict[str, Job] = {}
        self._current: str | None = None
        self._read = self._settled = self._saved = self._before = 0
        self._failures, self._rest = 0, 0.0
        self._marks: deque[tuple[float, int]] = deque()
        self._gateway = Gateway(self.settings, self.note, self._stop)
        self._thread = threading.Thread(target=self._run, name="strokeserve", daemon=True)

    def start(self) -> None:
        """Goes on where it was; at the very first start with what comes from now on."""
        last = self.orthanc.get("/changes?last")["Last"]
        saved = self.orthanc.read_property(CURSOR)
        self._read = self._settled = int(saved) if saved.isdigit() else last
        self._before = last
        self.orthanc.write_property(CURSOR, str(self._settled))
        self._saved = self._settled
        self._thread.start()

    def stop(self) -> None:
        """Ends what is being judged; it is judged at the next start."""
        self._stop.set()
        self.wake.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def ask(self, study: str) -> bool:
        """Has a study judged again, whatever came of it. Returns whether there is room for it."""
        with self._lock:
            if study not in self._pending and len(self._pending) >= 2 * MOST_PENDING:
                return False
            job = self._pending.setdefault(study, Job(self._read + 1))
            job.asked, job.due, job.first, job.tries = True, 0.0, 0.0, 0
        self.wake.set()
        return True

    def list_pending(self) -> dict[str, tuple[bool, str]]:
        """Studies that wait, by their ids: whether each is being judged now, and why it was not at the last try."""
        with self._lock:
            return {study: (study == self._current, job.reason) for study, job in self._pending.items()}

    def list_recent(self) -> list[str]:
        """Ids of the studies that have been judged lately, the last one first."""
        try:
            return [str(one) for one in json.loads(self.orthanc.read_property(RECENT) or "[]")]
        except ValueError:
            return []

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._fill()
                study = self._choose()
                if study is None:
                    self.wake.wait(POLL_SECONDS)
                    self.wake.clear()
                else:
                    self._work(study)
            except Exception as error:  # of Orthanc's database: the next round may do better
                self.note(f"standing still: {type(error).__name__}")
                self._stop.wait(POLL_SECONDS)

    def _fill(self) -> None:
        """Reads the log of changes, as far as there is room."""
        while len(self._pending) < MOST_PENDING and not self._stop.is_set():
            page = self.orthanc.get(f"/changes?since={self._read}&limit={PAGE}")
            for change in page["Changes"]:
                self._take(change)
            if page["Last"] > self._read:
                self._read = page["Last"]
                self._marks.append((time.monotonic(), self._read))
            self._save()
            if page["Done"]:
                return

    def _take(self, change: dict[str, Any]) -> None:
        # Of what came before this start Orthanc no longer knows whether it was complete.
        is_old = change["Seq"] <= self._before
        kind, study = change["ChangeType"], change["ID"]
        if kind in ("NewSeries", "NewInstance") and is_old:
            level = "series" if kind == "NewSeries" else "instances"
            found = self.orthanc.get(f"/{level}/{study}/study")
            if found is None:
                return
            study = found["ID"]
        elif kind != "StableStudy":
            return
        with self._lock:
            due = time.monotonic() + self.settings.stable_age if is_old else 0.0
            self._pending.setdefault(study, Job(change["Seq"], due))

    def _choose(self) -> str | None:
        """The study that has been due for longest; one that somebody asks for is due at once."""
        now = time.monotonic()
        with self._lock:
            rests = now < self._rest
            due = {one: job for one, job in self._pending.items() if job.due <= now and (job.asked or not rests)}
            self._current = min(due, key=lambda study: (not due[study].asked, due[study].due), default=None)
            return self._current

    def _work(self, study: str) -> None:
        job = self._pending[study]
        job.first = job.first or time.monotonic()
        try:
            self._judge(study, job)
            self._failures = 0
        except Exception as error:
            failure = error if isinstance(error, JudgeError) else JudgeError("FAILED", passes=True)
            if self._stop.is_set():
                return
            job.reason = str(failure)
            if failure.passes and time.monotonic() - job.first < self.settings.give_up:
                self._postpone(study, job)
                return
            self.note(f"study {study[:8]}: given up [{job.reason}]")
            self._keep(study, {**read_outcome(self.orthanc, study), "state": GIVEN_UP, "reason": job.reason})
        finally:
            with self._lock:
                self._current = None
        self._forget(study, job)

    def _postpone(self, study: str, job: Job) -> None:
        """Has a study tried again later, and the others, too: if the server is away they would not fare better."""
        job.tries += 1
        self._failures += 1
        job.due = time.monotonic() + find_pause(job.tries)
        self._rest = time.monotonic() + find_pause(self._failures)
        if job.tries == 1 or job.tries % 10 == 0:
            self.note(f"study {study[:8]}: not judged yet [{job.reason}]")

    def _forget(self, study: str, job: Job) -> None:
        with self._lock:
            if job.first:  # otherwise somebody has asked meanwhile
                self._pending.pop(study, None)
        self._save()

    def _save(self) -> None:
        """Writes down how far the log is done with: not so far as images that may yet be of an incomplete study, since
        Orthanc does not say of such, when it has been stopped, that they are complete."""
        settled = time.monotonic() - 2 * self.settings.stable_age - SETTLE_SECONDS
        while self._marks and self._marks[0][0] < settled:
            self._settled = self._marks.popleft()[1]
        with self._lock:
            done = min([self._settled, *(job.change - 1 for job in self._pending.values())])
        if done != self._saved:
            self.orthanc.write_property(CURSOR, str(done))
            self._saved = done

    def _judge(self, study: str, job: Job) -> None:
        """Judges a study that has images, is complete, and was not judged of the same images.

        Raises:
            JudgeError: it has no results.
        """
        found = self.orthanc.get(f"/studies/{study}")
        if found is None or not (found["IsStable"] or job.asked):  # gone, or its time will come
            return
        images: list[str] = []
        for one in found["Series"]:
            series = self.orthanc.get(f"/series/{one}")
            if series is not None and series["MainDicomTags"].get("Modality") == "CT":
                images += series["Instances"]
        if not images and not job.asked:
            return
        if not 0 < len(images) <= MOST_IMAGES:
            raise JudgeError("STUDY_TOO_LARGE" if images else "NOTHING_TO_JUDGE", passes=False)
        digest = hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()
        if not job.asked and read_outcome(self.orthanc, study).get("images") == digest:
            return
        entry, files = self._gateway.judge(self.orthanc, sorted(images))
        results = [self.orthanc.store(file) for file in files]
        self._keep(study, {"state": JUDGED, "images": digest, "results": results, "entry": entry})
        self.note(f"study {study[:8]}: {entry['status']}, {len(images)} images, {len(results)} results")

    def _keep(self, study: str, outcome: dict[str, Any]) -> None:
        """Writes down what came of a study."""
        outcome["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.orthanc.write_metadata(study, METADATA, json.dumps(outcome))
        recent = [study, *(one for one in self.list_recent() if one != study)][:MOST_RECENT]
        self.orthanc.write_property(RECENT, json.dumps(recent))


def find_pause(tries: int) -> float:
    """Seconds until something is tried again that has failed so many times."""
    pause: float = FIRST_PAUSE * 2 ** min(tries - 1, 10)
    return min(pause, MOST_PAUSE)


def read_outcome(orthanc: Archive, study: str) -> dict[str, Any]:
    """What came of a study; empty: nothing yet."""
    metadata = orthanc.get(f"/studies/{study}/metadata?expand") or {}
    try:
        return dict(json.loads(metadata.get(METADATA, "{}")))
    except (ValueError, TypeError):
        return {}
