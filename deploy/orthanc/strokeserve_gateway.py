"""The gateway's own command, run for one study of an Orthanc: its images written out, its results read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MOST_OUTPUT_BYTES = 10_000_000
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


class JudgeError(Exception):
    """A study has no results; the text is a reason in UPPER_SNAKE."""

    def __init__(self, reason: str, *, passes: bool) -> None:
        super().__init__(reason)
        self.passes = passes


class Gateway:
    """Runs the command. Images are on disk while it runs, and in a folder that nobody else may look into.

    Args:
        settings: of the plugin.
        note: takes a line for the log, in which nobody is named.
        stop: set when Orthanc stops.

    Raises:
        OSError: there can be no folder for images.
    """

    def __init__(self, settings: Settings, note: Callable[[str], None], stop: threading.Event) -> None:
        self._settings, self._note, self._stop = settings, note, stop
        settings.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in settings.scratch.glob("study-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)

    def judge(self, orthanc: Archive, images: list[str]) -> tuple[dict[str, Any], list[bytes]]:
        """Returns what result.json says of a study, and its results as DICOM files.

        Args:
            orthanc: the archive.
            images: ids of its images.

        Raises:
            JudgeError: there are none.
        """
        try:
            folder = Path(tempfile.mkdtemp(prefix="study-", dir=self._settings.scratch))
            try:
                return self._judge(orthanc, images, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # a full disk, an interpreter that is not there
            raise JudgeError("COMMAND_FAILED", passes=True) from None

    def _judge(self, orthanc: Archive, images: list[str], folder: Path) -> tuple[dict[str, Any], list[bytes]]:
        """Writes the images out, and reads what the command has made of them."""
        source, out = folder / "in", folder / "out"
        source.mkdir()
        for number, one in enumerate(images):
            data = orthanc.read_dicom(one)
            if data is not None:
                (source / f"{number:06d}.dcm").write_bytes(data)
            if self._stop.is_set():
                raise JudgeError("STOPPED", passes=True)
        interpreter, *arguments = self._settings.command
        command = [interpreter, "-m", "gateway", "judge", str(source), "--out", str(out), "--json", *arguments]
        status, answer, complaint = self._call(command, folder)
        try:
            document = json.loads(answer)
        except ValueError:
            document = {}
        if status == 0 and len(document.get("studies", [])) == 1:
            entry = document["studies"][0]
            return entry, [(out / file["name"]).read_bytes() for file in entry["files"] if "sop_instance_uid" in file]
        errors = document.get("errors")
        if not errors and complaint:
            self._note(complaint)
        reason = errors[0]["reason"] if errors else "SETTINGS_REFUSED" if status == 2 else "COMMAND_FAILED"
        raise JudgeError(reason, passes=reason not in LASTING)

    def _call(self, command: list[str], folder: Path) -> tuple[int, bytes, str]:
        """Runs a command; returns its status, what it has printed, and its complaint."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with open(folder / "stdout", "w+b") as output, open(folder / "stderr", "w+b") as errors:
            process = subprocess.Popen(
                command,
                cwd=self._settings.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
            end = time.monotonic() + self._settings.timeout
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
