"""DICOM files in the client: found in folders by what they are, and sent as they are."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from client.cli.main import main
from client.cli.selection import list_images
from client.files.dicom import is_dicom_start
from tests.client_fakes import FakeServer
from tests.dicom_starts import DICOM_STARTS, OTHER_STARTS

DICOM = bytes(128) + b"DICM"


def test_dicom_files_are_judged_like_others(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, or by what is in them where the name says nothing; unchanged, beside PNG files, none is passed over."""
    for name in ("c.dcm", "D.DCM", "IM0001", "1.2.840.1", "e.IMA", "f.dicom"):
        (scans / name).write_bytes(DICOM + name.encode())

    assert main(["scans", "--json"]) == 0

    names = [json.loads(line)["file"].removeprefix("scans/") for line in capsys.readouterr().out.splitlines()]
    assert names[:10] == [
        "1.2.840.1",
        "B.PNG",
        "D.DCM",
        "IM0001",
        "a.JPG",
        "b.png",
        "c.dcm",
        "c.jpeg",
        "e.IMA",
        "f.dicom",
    ]
    assert DICOM + b"1.2.840.1" in cli_server.servicer.images


def test_only_the_first_bytes_of_nameless_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk of an archive, which may be on a slow share, costs a look at each file."""
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    for index in range(100):
        Path(f"scans/{index}").write_bytes(DICOM + bytes(200_000))
    tracemalloc.start()
    try:
        assert len(list_images(["scans"], recursive=False)) == 100
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", DICOM_STARTS)
def test_dicom_file_is_told_by_its_first_bytes(name: str) -> None:
    """With a preamble, or without one by a first element that is a plausible one."""
    assert is_dicom_start(DICOM_STARTS[name])
    assert is_dicom_start(DICOM_STARTS[name] + bytes(1000))


@pytest.mark.parametrize("name", OTHER_STARTS)
def test_other_file_is_told_by_its_first_bytes(name: str) -> None:
    """Nothing else that lies in folders of images is sent for a DICOM file."""
    assert not is_dicom_start(OTHER_STARTS[name])
