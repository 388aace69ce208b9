"""docs/hospital.md on real programs: a task of a worklist, with Orthanc's DICOMweb plugin and a real server."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from tests.dicom_files import PATIENT
from tests.fakes import run_server, wait_until, write_model
from tests.gateway_box import make_files
from tests.perform_box import list_left, wait_for_state
from tests.studies import STUDY, STUDY_SPEC
from tests.test_gateway_orthanc import PAGE, ask, find_port, make_options, run_orthanc, run_program
from tests.ups_server import TASK, add_task, run_service


def test_task_is_performed_with_a_real_archive(tmp_path: Path) -> None:
    """Report and page are in it, the worklist refers to them, and nothing that names the patient is logged."""
    write_model(tmp_path / "models", STUDY_SPEC)
    with (
        run_server(tmp_path / "models") as server,
        run_orthanc(tmp_path / "orthanc", find_port()) as (url, _),
        run_service() as service,
    ):
        for file in make_files(10):
            ask(f"{url}/instances", file)
        task = add_task(service)
        command = make_command(service.url, f"{url}/dicom-web", tmp_path / "tasks", server.address)
        with run_program(command, **make_options()) as log:
            assert wait_for_state(service, TASK) == "COMPLETED"
            wait_until(lambda: list_left(tmp_path / "tasks") == [])
        series = ask(f"{url}/series?expand")
        outputs = task.dataset["00741216"]["Value"][0]["00404033"]["Value"]
        fetched = [ask(f"{output['0040E025']['Value'][0]['00081190']['Value'][0]}/metadata") for output in outputs]

    assert sorted(one["MainDicomTags"]["Modality"] for one in series) == ["CT", "OT", "SR"]
    assert sorted(one[0]["00080060"]["Value"][0] for one in fetched) == ["OT", "SR"]
    assert {one[0]["0020000D"]["Value"][0] for one in fetched} == {STUDY}
    said = "".join([*log, *server.log])
    assert re.search(r"task \w{12}: COMPLETED", said)
    for secret in (*PATIENT.values(), "Doe", STUDY, TASK):
        assert str(secret) not in said


def make_command(worklist: str, archive: str, queue: Path, server: str) -> list[str]:
    """The page's command, with what is elsewhere in a test."""
    (found,) = re.findall(r"^\$ \S*(python -m gateway perform .*)$", PAGE, re.MULTILINE)
    places = {
        "http://127.0.0.1:8080/dicom-web": worklist,
        "http://127.0.0.1:8042/dicom-web": archive,
        "tasks": str(queue),
    }
    words = shlex.split(found)[1:]
    assert places.keys() <= set(words)
    return [sys.executable, *(places.get(word, word) for word in words), "--server", server]


def test_page_has_the_codes_of_a_canceled_task() -> None:
    """Those that the program sends."""
    from gateway.perform import statements

    codes = [statements.INCOMPLETE, statements.NOT_SUPPORTED, statements.MALFORMED, statements.INADEQUATE]
    for code in (*codes, statements.UNSPECIFIED):
        assert f"| {code.value} {code.meaning} |" in PAGE
