"""Fetching from real archives: Orthanc, and dcmtk's dcmqrscp."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.addresses import Address
from gateway.fetch.archive import Archive, FoundSeries, Moved
from gateway.fetch.limit import Limit
from gateway.queue.folder import make_key
from tests.dicom_files import PATIENT
from tests.fakes import ROOT, run_server, wait_until, write_model
from tests.gateway_box import TITLE, make_files, open_box, send
from tests.studies import SERIES, STUDY, STUDY_SPEC
from tests.test_gateway_orthanc import PAGE, ask, find_port, run_orthanc, run_program
from tests.tracing import traced

ACCESSION = "A4711"
OTHER_STUDY = "1.2.826.0.1.3680043.8.498.9"
QUERY_ARCHIVE, SENDER = shutil.which("dcmqrscp"), shutil.which("storescu")
CONFIG = """
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
gateway = ({title}, localhost, {gateway_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
PACS {folder} RW (200, 1024mb) ANY
AETable END
"""


def test_study_is_completed_and_another_one_fetched(tmp_path: Path) -> None:
    """Of one a scanner has sent three of ten slices here; the other somebody wants by its accession number. Each has
    its results in Orthanc, once."""
    write_model(tmp_path / "models", STUDY_SPEC)
    port = find_port()
    options = {"cwd": ROOT, "env": {**os.environ, **traced()}}
    with (
        run_server(tmp_path / "models") as server,
        run_orthanc(tmp_path / "orthanc", port, LuaScripts=[]) as (url, dicom),
        run_program(make_command(tmp_path / "queue", dicom, port, server.address), **options) as log,
    ):
        wait_until(lambda: any("listens on" in line for line in log))
        other = make_files(9, study=OTHER_STUDY, series="1.2.9", AccessionNumber=ACCESSION)
        for file in [*make_files(10), *other, *make_files(1, series="1.2.7", Modality="MR")]:
            ask(f"{url}/instances", file)
        assert send(port, make_files(3)) == [0, 0, 0]
        wait_until(lambda: sum("results are at" in line for line in log) == 1)

        words = find_words("python -m gateway fetch")
        assert words[-1] == "queue"
        words[-1] = str(tmp_path / "queue")
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)  # type: ignore[call-overload]
        assert (done.returncode, done.stdout.startswith("9 images of a study")) == (0, True), done.stderr
        wait_until(lambda: sum("results are at" in line for line in log) == 2)
        series = [one["MainDicomTags"]["Modality"] for one in ask(f"{url}/series?expand")]
        wait_until(lambda: not list((tmp_path / "queue" / "sending").iterdir()))

    assert sorted(series) == ["CT", "CT", "MR", "OT", "OT", "SR", "SR"]
    said = "".join(log)
    assert re.findall(r"(\d+) files in", said) == ["10", "9"]
    for secret in (*PATIENT.values(), "Doe", STUDY, OTHER_STUDY, SERIES, ACCESSION):
        assert str(secret) not in said


def find_words(start: str) -> list[str]:
    """The command of the page that begins so, behind its interpreter."""
    (found,) = re.findall(rf"^    ({re.escape(start)}.*)$", PAGE, re.MULTILINE)
    return shlex.split(found)[1:]


def make_command(queue: Path, dicom: int, port: int, server: str) -> list[str]:
    """The page's command, with what is elsewhere in a test."""
    words = find_words("python -m gateway listen --queue queue --send-to ARCHIVE@127.0.0.1:4242 --fetch-from")
    places = {"queue": str(queue), "ARCHIVE@127.0.0.1:4242": f"ARCHIVE@127.0.0.1:{dicom}"}
    placed = [places.get(word, word) for word in words]
    return [sys.executable, *placed, "--dicom-port", str(port), "--quiet-seconds", "1", "--server", server]


@contextmanager
def run_query_archive(folder: Path, gateway_port: int) -> Iterator[int]:
    """dcmtk's archive; its port."""
    if QUERY_ARCHIVE is None or SENDER is None:
        pytest.skip("dcmtk is not installed here: its archive is not tested")
    port = find_port()
    (folder / "db").mkdir(parents=True)
    text = CONFIG.format(port=port, title=TITLE, gateway_port=gateway_port, folder=folder / "db")
    (folder / "dcmqrscp.cfg").write_text(text)
    with run_program([QUERY_ARCHIVE, "-c", str(folder / "dcmqrscp.cfg")], cwd=folder):
        yield port


def test_archive_of_dcmtk_is_asked_and_sends(tmp_path: Path) -> None:
    """What it says of its series, and where it sends them; a series of another study is not among them."""
    with open_box(tmp_path / "queue") as box, run_query_archive(tmp_path / "archive", box.port) as port:
        paths = []
        files = [*make_files(4, AccessionNumber=ACCESSION), *make_files(2, study=OTHER_STUDY, series="1.2.9")]
        for number, file in enumerate(files):
            paths.append(tmp_path / f"{number}.dcm")
            paths[-1].write_bytes(file)
        assert SENDER is not None
        store = [SENDER, "-aec", "PACS", "127.0.0.1", str(port), *map(str, paths)]
        wait_until(lambda: subprocess.run(store, capture_output=True, check=False).returncode == 0)

        archive, limit = Archive(Address("PACS", "127.0.0.1", port), TITLE), Limit(60, lambda: True)
        told: list[Moved] = []
        assert archive.find_studies(ACCESSION, limit) == [STUDY]
        assert archive.find_series(STUDY, limit) == [FoundSeries(SERIES, 4)]
        assert archive.move(STUDY, SERIES, limit, told.append) == Moved(4, 0)
        assert len(list((box.folder.receiving / make_key(STUDY)).glob("*.dcm"))) == 4
        assert told
        assert archive.find_series(OTHER_STUDY, limit) == [FoundSeries("1.2.9", 2)]
