"""What tests with a real Orthanc share: programs that run beside them, and Orthanc with the repository's settings."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ROOT, wait_until

ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/bin")


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def run_program(command: list[str], **options: Any) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A program, and the lines that it has printed so far."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert process.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        yield process, lines
    finally:
        process.terminate()
        process.wait(60)
        reader.join()
        process.stdout.close()


def ask(url: str, data: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as answer:
        return json.load(answer)


@dataclass
class Orthanc:
    """One that runs."""

    process: subprocess.Popen[str]
    log: list[str]
    url: str
    dicom_port: int


@contextmanager
def run_orthanc(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> Iterator[Orthanc]:
    """Orthanc with the settings of a file of deploy/orthanc, on free ports and in a hurry.

    Args:
        folder: where it lives; what it has stored there before is there.
        name: of the file.
        change: what is elsewhere in a test.
    """
    if ORTHANC is None:
        pytest.skip("Orthanc is not installed here: the way through a real archive is not tested")
    shutil.copytree(ROOT / "deploy" / "orthanc", folder, dirs_exist_ok=True)
    settings = json.loads((folder / name).read_text())
    http, dicom = find_port(), find_port()
    settings |= {"HttpPort": http, "DicomPort": dicom, "StableAge": 1}
    settings |= {"StorageDirectory": "db", "IndexDirectory": "db"}
    change(settings)
    (folder / name).write_text(json.dumps(settings))
    with run_program([ORTHANC, name], cwd=folder) as (process, log):
        wait_until(lambda: any("Orthanc has started" in line for line in log))
        yield Orthanc(process, log, f"http://127.0.0.1:{http}", dicom)
