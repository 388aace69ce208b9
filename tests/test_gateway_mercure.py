"""deploy/mercure by mercure's contract: its folders, its task.json, its names of files, and what its log keeps."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest

from gateway.cli import main
from gateway.folder.mercure import KNOWN, list_flags, make_notification, read_task
from tests.dicom_files import PATIENT
from tests.fakes import ROOT, run_server, write_model
from tests.gateway_box import make_files
from tests.studies import SERIES, STUDY, STUDY_SPEC
from tests.test_gateway_orthanc import find_command

DEPLOY = ROOT / "deploy" / "mercure"


def read_entrypoint() -> list[str]:
    """What the container runs."""
    (found,) = re.findall(r"^ENTRYPOINT (\[.*\])$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    words: list[str] = json.loads(found)
    return [sys.executable, *words[1:]]


def write_task(folder: Path, settings: dict[str, Any]) -> None:
    """As mercure's processor lays it down: among the images, for the step that is run."""
    process = {
        "module_name": "strokeserve",
        "module_config": {"docker_tag": "strokeserve-mercure"},
        "settings": settings,
    }
    task = {
        "id": "1",
        "info": {"patient_name": PATIENT["PatientName"], "mrn": PATIENT["PatientID"]},
        "process": process,
    }
    (folder / "task.json").write_text(json.dumps(task))


def lay_down(folder: Path, settings: dict[str, Any]) -> tuple[Path, Path]:
    """Folders as mercure makes them."""
    source, out = folder / "in", folder / "out"
    source.mkdir()
    out.mkdir()
    for number, file in enumerate(make_files(8)):
        (source / f"{SERIES}#{SERIES}.{number + 1}.dcm").write_bytes(file)
        (source / f"{SERIES}#{SERIES}.{number + 1}.tags").write_text(json.dumps(PATIENT))
    write_task(source, settings)
    return source, out


def test_container_does_what_mercure_expects(tmp_path: Path) -> None:
    """Exit code 0, DICOM files that are named by series and instance, and a result.json that may be logged."""
    write_model(tmp_path / "models", STUDY_SPEC)
    with run_server(tmp_path / "models") as server:
        source, out = lay_down(tmp_path, {"server": server.address, "results": ["sr", "sc", "fhir"], "timeout": 60})
        folders = {"MERCURE_IN_DIR": str(source), "MERCURE_OUT_DIR": str(out)}
        # As any user, without a home.
        environment = {name: value for name, value in os.environ.items() if name != "HOME"} | folders
        done = subprocess.run(
            read_entrypoint(), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr

    for path in out.glob("*.dcm"):
        found = pydicom.dcmread(path)
        assert path.name == f"{found.SeriesInstanceUID}#{found.SOPInstanceUID}.dcm"
        assert found.StudyInstanceUID == STUDY
    assert len(list(out.glob("*.dcm"))) == 2
    document = json.loads((out / "result.json").read_text())
    assert document["studies"][0]["images"] == 8
    assert "Not for diagnosis" in document["__mercure_notification"]["text"]
    said = done.stdout + done.stderr + (out / "result.json").read_text()
    for secret in (*PATIENT.values(), "Doe"):
        assert str(secret) not in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sever": "box:1"}, "process.settings has no 'sever'"),
        ({"results": "pdf"}, "--results must be"),
        ({"server": {"host": "box"}}, "server of process.settings must be a text"),
        ({"results": ["sr", True]}, "results of process.settings must be"),
        ({"out": "/elsewhere"}, "process.settings has no 'out'"),
        ([], "process.settings must be an object"),
    ],
)
def test_settings_that_cannot_be_used_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Any, said: str
) -> None:
    """With exit code 2 and one line, so that mercure's page shows it."""
    source, out = lay_down(tmp_path, settings)
    monkeypatch.setenv("MERCURE_IN_DIR", str(source))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(out))

    with pytest.raises(SystemExit) as exit_:
        main(["mercure"])

    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert list(out.iterdir()) == []


def test_folders_are_mercures_to_give(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without them nothing is guessed."""
    monkeypatch.delenv("MERCURE_IN_DIR", raising=False)

    with pytest.raises(SystemExit) as exit_:
        main(["mercure"])

    assert exit_.value.code == 2
    assert "MERCURE_IN_DIR and MERCURE_OUT_DIR must name folders" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[", "{}", '{"process": null}', '{"process": {"settings": null}}', "[1]"])
def test_task_without_settings_has_none(tmp_path: Path, text: str) -> None:
    """Or is said to be none of mercure's."""
    path = tmp_path / "task.json"
    path.write_text(text)
    if text in ("", "["):
        with pytest.raises(ValueError, match="JSON"):
            read_task(path)
    else:
        assert read_task(path) == {}
    assert read_task(tmp_path / "none") == {}


def test_settings_are_flags() -> None:
    """A value that looks like a flag is none."""
    assert list_flags({"results": ["sr", "fhir"], "timeout": 5, "token_file": "--again"}) == [
        "--results=sr,fhir",
        "--timeout=5",
        "--token-file=--again",
    ]
    assert {"server", "tls_ca", "results", "priority_field"} <= set(KNOWN)


@pytest.mark.parametrize(("urgency", "requested"), [("positive", True), ("not-analysed", False), ("rest", False)])
def test_people_are_told_of_positive_studies_whatever_the_rule_says(urgency: str, requested: bool) -> None:
    """By mercure's own word for it."""
    entry = {"urgency": urgency, "probability": 0.9, "label": "stroke", "threshold": 0.5, "images": 3}
    found = make_notification([entry | {"model": "tiny", "version": "1"}])["__mercure_notification"]

    assert found["requested"] is requested
    assert found["text"].startswith(f"{urgency}: stroke, probability 0.900")


def test_page_builds_the_container_from_its_file() -> None:
    """By the command of docs/hospital.md."""
    words = find_command("docker build")
    assert (ROOT / words[words.index("-f") + 1]).samefile(DEPLOY / "Dockerfile")
    assert (ROOT / words[-1]).samefile(ROOT)


def test_example_settings_can_be_used() -> None:
    """Those of deploy/mercure/settings.json."""
    assert len(list_flags(json.loads((DEPLOY / "settings.json").read_text()))) == 3


def test_container_has_what_the_module_needs(tmp_path: Path) -> None:
    """What its Dockerfile copies is enough to run it: nothing of the server's own is in it."""
    app = tmp_path / "app"
    for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines():
        if line.startswith("COPY ") and not line.startswith("COPY --from") and "/app" in line:
            *sources, target = shlex.split(line)[1:]
            for source in sources:
                inside = tmp_path / target.lstrip("/")
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, inside, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    inside.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, inside)
    source, out = lay_down(tmp_path, {"server": "127.0.0.1:1", "timeout": 1})
    environment = {
        **os.environ,
        "MERCURE_IN_DIR": str(source),
        "MERCURE_OUT_DIR": str(out),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        read_entrypoint(), cwd=app, env=environment, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 1, done.stderr
    assert "1 of 1 studies have no results" in done.stderr
    assert list(out.iterdir()) == []
