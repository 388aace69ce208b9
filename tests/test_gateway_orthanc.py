"""docs/hospital.md on real programs: from Orthanc through gateway and server back into Orthanc."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.dicom_files import PATIENT
from tests.fakes import ROOT, run_server, wait_until, write_model
from tests.gateway_box import make_files
from tests.studies import STUDY, STUDY_SPEC, make_slice
from tests.tracing import traced

PAGE = (ROOT / "docs" / "hospital.md").read_text("utf-8")
ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/bin")


def find_command(start: str) -> list[str]:
    """The command of the page that begins so, behind its interpreter."""
    (found,) = re.findall(rf"^\$ \S*({re.escape(start)}.*)$", PAGE, re.MULTILINE)
    return shlex.split(found)


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def run_program(command: list[str], **options: Any) -> Iterator[list[str]]:
    """A program, and the lines that it has printed so far."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert process.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        process.terminate()
        process.wait(60)
        reader.join()
        process.stdout.close()


def ask(url: str, data: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as answer:
        return json.load(answer)


@contextmanager
def run_orthanc(folder: Path, gateway_port: int) -> Iterator[tuple[str, int]]:
    """Orthanc with the settings that the repository has; its URL and its DICOM port."""
    if ORTHANC is None:
        pytest.skip("Orthanc is not installed here: the way through a real archive is not tested")
    shutil.copytree(ROOT / "deploy" / "orthanc", folder)
    settings = json.loads((folder / "orthanc.json").read_text())
    http, dicom = find_port(), find_port()
    settings |= {"HttpPort": http, "DicomPort": dicom, "StableAge": 1}
    settings |= {"StorageDirectory": "db", "IndexDirectory": "db"}
    settings["DicomModalities"]["strokeserve"][2] = gateway_port
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with run_program([ORTHANC, "orthanc.json"], cwd=folder) as log:
        wait_until(lambda: any("Orthanc has started" in line for line in log))
        yield f"http://127.0.0.1:{http}", dicom


def test_study_goes_from_the_archive_and_its_results_come_back(tmp_path: Path) -> None:
    """By C-STORE and by STOW-RS; nothing that names the patient is logged, and nothing of the study stays."""
    write_model(tmp_path / "models", STUDY_SPEC)
    port = find_port()
    with (
        run_server(tmp_path / "models") as server,
        run_orthanc(tmp_path / "orthanc", port) as (url, dicom),
        run_program(make_gateway_command(tmp_path, url, dicom, port, server.address), **make_options()) as log,
    ):
        wait_until(lambda: any("listens on" in line for line in log))
        for file in [*make_files(10), make_slice(0, series="1.2.9", StudyInstanceUID=STUDY, ConvolutionKernel="B70f")]:
            ask(f"{url}/instances", file)
        wait_until(lambda: sum("results are at" in line for line in log) == 2)
        series = [one["MainDicomTags"] for one in ask(f"{url}/series?expand")]
        (study,) = ask(f"{url}/studies?expand")
        wait_until(lambda: not list((tmp_path / "queue" / "sending").iterdir()))

    assert sorted(one["Modality"] for one in series) == ["CT", "CT", "OT", "SR"]
    assert study["PatientMainDicomTags"]["PatientName"] == PATIENT["PatientName"]
    assert not list((tmp_path / "queue").rglob("*.dcm"))
    said = "".join([*log, *server.log])
    for secret in (*PATIENT.values(), "Doe", STUDY, "1.2.9"):
        assert str(secret) not in said


def make_gateway_command(folder: Path, url: str, dicom: int, port: int, server: str) -> list[str]:
    """The page's command, with what is elsewhere in a test."""
    command = [sys.executable, *find_command("python -m gateway listen")[1:], "--dicom-port", str(port)]
    places = {
        "queue": str(folder / "queue"),
        "ARCHIVE@127.0.0.1:4242": f"ARCHIVE@127.0.0.1:{dicom}",
        "http://127.0.0.1:8042/dicom-web": f"{url}/dicom-web",
    }
    assert places.keys() <= set(command)
    return [places.get(word, word) for word in command] + ["--quiet-seconds", "1", "--server", server]


def make_options() -> dict[str, Any]:
    return {"cwd": ROOT, "env": {**os.environ, **traced()}}


def test_page_says_how_long_things_stay() -> None:
    """By the settings' defaults."""
    from gateway.listen.settings import ListenConfig

    for name in ("keep_failed_days", "keep_days", "worklist_hours"):
        default = getattr(ListenConfig(queue=Path("queue"), folder_to=(".",)), name)
        assert f"`--{name.replace('_', '-')}` ({default:g})" in PAGE


def test_page_names_every_state_of_the_queue() -> None:
    """And nothing else is written."""
    from gateway.queue.folder import STATES

    assert set(re.findall(r"^\| `queue/([a-z]+)`", PAGE, re.MULTILINE)) == set(STATES)
