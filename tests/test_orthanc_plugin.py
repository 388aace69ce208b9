"""deploy/orthanc/strokeserve_plugin.py in a real Orthanc: a study that comes has its results beside it, once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.dicom_files import PATIENT
from tests.fakes import ROOT, run_server, wait_until, write_model
from tests.gateway_box import make_files
from tests.studies import STUDY, STUDY_SPEC
from tests.test_gateway_orthanc import ORTHANC, ask, find_command, find_port

PYTHON_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancPython.so")

needs_orthanc = pytest.mark.skipif(
    ORTHANC is None or not PYTHON_PLUGIN.exists(),
    reason="Orthanc, or its Python plugin (orthanc-python), is not installed here",
)


@dataclass
class Archive:
    """An Orthanc that runs."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str

    def read_log(self) -> str:
        return self.log.read_text("utf-8", "replace")


@contextmanager
def run_archive(folder: Path, server: str) -> Iterator[Archive]:
    """Orthanc with the settings of the repository, in a hurry; what it has stored in a folder before is there."""
    assert ORTHANC is not None
    shutil.copytree(ROOT / "deploy" / "orthanc", folder, dirs_exist_ok=True)
    settings = json.loads((folder / "plugin.json").read_text())
    own = settings["StrokeServe"]
    assert own["Arguments"][:1] == ["--server"]
    own |= {"Python": sys.executable, "Directory": str(ROOT), "Scratch": str(folder / "scratch")}
    own["Arguments"] = ["--server", server, "--timeout", "20"]
    port = find_port()
    settings |= {"HttpPort": port, "DicomPort": find_port(), "StableAge": 1}
    settings |= {"StorageDirectory": "db", "IndexDirectory": "db"}
    (folder / "plugin.json").write_text(json.dumps(settings))
    log = folder / "log"
    with (
        open(log, "wb") as output,
        subprocess.Popen([ORTHANC, "plugin.json"], cwd=folder, stdout=output, stderr=output) as process,
    ):
        archive = Archive(process, log, f"http://127.0.0.1:{port}")
        try:
            wait_until(lambda: "Orthanc has started" in archive.read_log())
            yield archive
        finally:
            process.terminate()


def count_modalities(orthanc: Archive) -> Counter[str]:
    """Instances of the archive by their modality."""
    series = ask(f"{orthanc.url}/series?expand")
    return Counter(one["MainDicomTags"]["Modality"] for one in series for _ in one["Instances"])


def list_states(orthanc: Archive) -> list[str]:
    """States of the studies that the page shows."""
    return [row["state"] for row in ask(f"{orthanc.url}/strokeserve/studies")]


def count_judged(orthanc: Archive) -> int:
    return len(re.findall(r"strokeserve: study \w+: ANALYSED", orthanc.read_log()))


def run_page_command(orthanc: Archive, study: str) -> str:
    """Asks for a study by the command of docs/hospital.md; returns what it prints."""
    *words, url = find_command("curl -X POST")
    assert url.startswith("http://127.0.0.1:8042/")
    url = url.replace("http://127.0.0.1:8042", orthanc.url).replace("STUDY", study)
    return subprocess.run([*words, "--silent", url], check=True, capture_output=True, text=True, timeout=30).stdout


def press_button(orthanc: Archive) -> int:
    """As a browser does that shows the page; returns the status of the page that comes next."""
    with urllib.request.urlopen(f"{orthanc.url}/strokeserve/index.html", timeout=30) as page:
        body = page.read().decode()
    (action,) = re.findall(r'action="([^"]+)"', body)
    (token,) = re.findall(r'name="token" value="([^"]+)"', body)
    with urllib.request.urlopen(f"{orthanc.url}/strokeserve/{action}", f"token={token}".encode(), timeout=30) as answer:
        assert answer.url == f"{orthanc.url}/strokeserve/index.html"
        return int(answer.status)


@needs_orthanc
def test_study_has_its_results_beside_it_once(tmp_path: Path) -> None:
    """Also when its results have come into it, and somebody asks again."""
    write_model(tmp_path / "models", STUDY_SPEC)
    with (
        run_server(tmp_path / "models") as server,
        run_archive(tmp_path / "orthanc", server.address) as orthanc,
    ):
        for file in make_files(8):
            ask(f"{orthanc.url}/instances", file)
        wait_until(lambda: list_states(orthanc) == ["Below the threshold"])
        first = count_modalities(orthanc)
        wait_until(lambda: ask(f"{orthanc.url}/studies?expand")[0]["IsStable"])
        assert press_button(orthanc) == 200
        wait_until(lambda: count_judged(orthanc) == 2)
        assert run_page_command(orthanc, "-".join(["0" * 8] * 5)) == "There is no such study.\n"
        again = count_modalities(orthanc)

    assert first == again == Counter(CT=8, SR=1, OT=1)
    assert list((tmp_path / "orthanc" / "scratch").iterdir()) == []
    log = orthanc.read_log()
    for secret in (*PATIENT.values(), "Doe", STUDY):
        assert str(secret) not in log
    assert "traceback" not in log.lower()


@needs_orthanc
def test_study_that_came_while_the_server_was_away_is_judged_after_kill_and_restart(tmp_path: Path) -> None:
    """Without anybody's doing."""
    write_model(tmp_path / "models", STUDY_SPEC)
    nobody = f"127.0.0.1:{find_port()}"
    with run_archive(tmp_path / "orthanc", nobody) as orthanc:
        for file in make_files(8):
            ask(f"{orthanc.url}/instances", file)
        wait_until(lambda: list_states(orthanc) in (["Waits"], ["Being judged"]))
        orthanc.process.kill()
    with (
        run_server(tmp_path / "models") as server,
        run_archive(tmp_path / "orthanc", server.address) as orthanc,
    ):
        wait_until(lambda: list_states(orthanc) == ["Below the threshold"])
        found = count_modalities(orthanc)

    assert found == Counter(CT=8, SR=1, OT=1)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"Python": "python3"}, "StrokeServe.Python must be an absolute path"),
        ({"Pyton": "/x"}, "StrokeServe has no setting Pyton"),
        ({"Directory": "/"}, "StrokeServe.Directory must be where StrokeServe is installed"),
        ({"Arguments": "--server box"}, "StrokeServe.Arguments must be a list"),
        ({"GiveUpHours": 0}, "StrokeServe.GiveUpHours must be a number above 0"),
    ],
)
def test_settings_that_cannot_be_used_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: dict[str, Any], said: str
) -> None:
    """Before anything is received."""
    import importlib
    from types import SimpleNamespace

    settings = json.loads((ROOT / "deploy" / "orthanc" / "plugin.json").read_text())
    settings["StrokeServe"] |= {"Directory": str(ROOT)}
    fake = SimpleNamespace(
        OrthancException=ValueError,
        GetConfiguration=lambda: json.dumps(settings),
        RegisterOnChangeCallback=lambda _: None,
        RegisterRestCallback=lambda *_: None,
        SetRootUri=lambda _: None,
    )
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setitem(sys.modules, "orthanc", fake)
    monkeypatch.syspath_prepend(ROOT / "deploy" / "orthanc")
    plugin = importlib.import_module("strokeserve_plugin")
    settings["StrokeServe"] |= own

    with pytest.raises(ValueError, match=re.escape(said)):
        plugin.read_settings(settings)


def test_page_starts_orthanc_with_the_plugin() -> None:
    """docs/hospital.md names the file, and the file names the script."""
    folder = ROOT / find_command("cd deploy/orthanc && Orthanc plugin.json")[1]
    settings = json.loads((folder / "plugin.json").read_text())
    assert (folder / settings["PythonScript"]).is_file()
