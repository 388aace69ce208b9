"""Which studies of an Orthanc are to be judged, one after the other, by the gateway's own command.

What is to be done is read from Orthanc's log of changes, and how far that was read is kept in its database: so nothing
is forgotten when Orthanc is stopped, or the server is away for a day, and nothing grows in memory. What came of a study
is kept as its metadata, with a digest of the images that it stands on: so it is judged once, and results that come into
it do not have it judged again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

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

MOST_OUTPUT_BYTES = 10_000_000
HOUR = 3600.0

JUDGED, GIVEN_UP = "judged", "given up"
LASTING = ("NOTHING_TO_JUDGE", "RESULTS_NOT_MADE")
"""Reasons of the command that another try would not change."""


class Archive(Protocol):
    """What is asked of Orthanc. A resource that is not there is None."""

    def get(self, path: str) -> Any:
        """Answer of the REST API."""

    def read_dicom(self, instance: str) -> bytes | None:
        """An instance as a file."""

    def store(self, data: bytes) -> str:
        """Stores an instance, and returns its id; one that is there stays as it is.

        Raises:
            JudgeError: it is not stored.
        """

    def write_metadata(self, study: str, name: str, value: str) -> None:
        """Sets metadata of a study, if it is still there."""

    def read_property(self, number: int) -> str:
        """A global property; empty where it was never set."""

    def write_property(self, number: int, value: str) -> None:
        """Sets a global property."""


@dataclass(frozen=True)
class Settings:
    """What orthanc.json says under ``StrokeServe``."""

    command: tuple[str, ...]
    """The gateway's interpreter, and what comes behind it."""

    directory: Path
    """Where the gateway is installed."""

    scratch: Path
    """Where images are while they are judged; nobody else may look into it."""

    timeout: float
    """Seconds that a study may take."""

    give_up: float
    """Seconds for which a study is tried again while the server is away."""

    stable_age: float
    """Seconds after which Orthanc takes a study for complete."""


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


class JudgeError(Exception):
    """A study has no results; the text is a reason in UPPER_SNAKE."""

    def __init__(self, reason: str, *, passes: bool) -> None:
        super().__init__(reason)
        self.passes = passes


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
        self._marks: deque[tuple[float, int]] = deque()
        self.settings.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self.settings.scratch.glob("study-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
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
        """The study that has been due for longest."""
        now = time.monotonic()
        with self._lock:
            due = {study: job for study, job in self._pending.items() if job.due <= now}
            self._current = min(due, key=lambda study: (not due[study].asked, due[study].due), default=None)
            return self._current

    def _work(self, study: str) -> None:
        job = self._pending[study]
        job.first = job.first or time.monotonic()
        try:
            self._judge(study, job)
        except JudgeError as error:
            if self._stop.is_set():
                return
            job.reason = str(error)
            if error.passes and time.monotonic() - job.first < self.settings.give_up:
                job.tries += 1
                job.due = time.monotonic() + min(FIRST_PAUSE * 2 ** (job.tries - 1), MOST_PAUSE)
                if job.tries == 1 or job.tries % 10 == 0:
                    self.note(f"study {study[:8]}: not judged yet [{job.reason}]")
                return
            self.note(f"study {study[:8]}: given up [{job.reason}]")
            self._keep(study, {**read_outcome(self.orthanc, study), "state": GIVEN_UP, "reason": job.reason})
        finally:
            with self._lock:
                self._current = None
        self._forget(study, job)

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
        folder = Path(tempfile.mkdtemp(prefix="study-", dir=self.settings.scratch))
        try:
            entry, files = self._run_gateway(folder, sorted(images))
            results = [self.orthanc.store(file.read_bytes()) for file in files]
        except OSError as error:  # a full disk
            raise JudgeError("FILE_NOT_WRITTEN", passes=True) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._keep(study, {"state": JUDGED, "images": digest, "results": results, "entry": entry})
        self.note(f"study {study[:8]}: {entry['status']}, {len(images)} images, {len(results)} results")

    def _run_gateway(self, folder: Path, images: list[str]) -> tuple[dict[str, Any], list[Path]]:
        """Returns what result.json says of the study, and its files.

        Raises:
            JudgeError: the command failed.
        """
        source, out = folder / "in", folder / "out"
        source.mkdir()
        for number, one in enumerate(images):
            data = self.orthanc.read_dicom(one)
            if data is not None:
                (source / f"{number:06d}.dcm").write_bytes(data)
            if self._stop.is_set():
                raise JudgeError("STOPPED", passes=True)
        interpreter, *arguments = self.settings.command
        command = [interpreter, "-m", "gateway", "judge", str(source), "--out", str(out), "--json", *arguments]
        status, answer, complaint = self._call(command, folder)
        try:
            document = json.loads(answer)
        except ValueError:
            document = {}
        if status == 0 and len(document.get("studies", [])) == 1:
            entry = document["studies"][0]
            return entry, [out / file["name"] for file in entry["files"] if "sop_instance_uid" in file]
        errors = document.get("errors")
        if not errors and complaint:
            self.note(complaint)
        reason = errors[0]["reason"] if errors else "SETTINGS_REFUSED" if status == 2 else "COMMAND_FAILED"
        raise JudgeError(reason, passes=reason not in LASTING)

    def _call(self, command: list[str], folder: Path) -> tuple[int, bytes, str]:
        """Runs a command; returns its status, what it has printed, and its complaint."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with open(folder / "stdout", "w+b") as output, open(folder / "stderr", "w+b") as errors:
            process = subprocess.Popen(
                command,
                cwd=self.settings.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
            end = time.monotonic() + self.settings.timeout
            try:
                while process.poll() is None and time.monotonic() < end and not self._stop.wait(0.05):
                    pass
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            output.seek(0)
            errors.seek(0)
            lines = errors.read(MOST_OUTPUT_BYTES).decode("utf-8", "replace").splitlines()
            # Not what else may be there: the traceback of a library may repeat what a file says.
            complaint = next((line for line in reversed(lines) if line.startswith("gateway judge: error:")), "")
            return process.returncode, output.read(MOST_OUTPUT_BYTES), complaint

    def _keep(self, study: str, outcome: dict[str, Any]) -> None:
        """Writes down what came of a study."""
        outcome["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.orthanc.write_metadata(study, METADATA, json.dumps(outcome))
        recent = [study, *(one for one in self.list_recent() if one != study)][:MOST_RECENT]
        self.orthanc.write_property(RECENT, json.dumps(recent))


def read_outcome(orthanc: Archive, study: str) -> dict[str, Any]:
    """What came of a study; empty: nothing yet."""
    metadata = orthanc.get(f"/studies/{study}/metadata?expand") or {}
    try:
        return dict(json.loads(metadata.get(METADATA, "{}")))
    except (ValueError, TypeError):
        return {}
