"""DICOM files in the client: found in folders by what they are, and sent as they are."""

from __future__ import annotations

import csv
import io
import json
import random
import tracemalloc
from pathlib import Path

import grpc
import pytest
from pydicom import Dataset, Sequence, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from client import InvalidImageError, ServerError
from client.cli.main import main
from client.cli.selection import list_images
from client.files.dicom import is_dicom_start
from client.files.ends import has_image_end
from server.images.dicom.signature import is_dicom
from tests.client_fakes import FakeServer, RefusalError, make_refusal_to_judge, make_response, wait_for
from tests.client_kinds import ClientKind
from tests.dicom_starts import DICOM_STARTS, OTHER_STARTS
from tests.watching import watching_here

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


def test_client_and_server_tell_the_same_files() -> None:
    """They share no code: the table holds for both, and so does whatever is changed in its rows."""
    rng = random.Random(17)
    rows = [*DICOM_STARTS.values(), *OTHER_STARTS.values()]
    taken = 0
    for _ in range(20_000):
        start = bytearray(rng.choice(rows) + bytes(rng.choice((0, 60))))
        for _ in range(rng.randrange(1, 5)):
            if start:
                start[rng.randrange(min(len(start), 40))] = rng.choice((0, 1, 2, 4, 8, 255, rng.randrange(256)))
        told = is_dicom_start(bytes(start))
        assert told == is_dicom(bytes(start)), bytes(start)
        taken += told
    assert 2_000 < taken < 18_000


def write_file(syntax: str, *, is_headless: bool = False) -> bytes:
    """A DICOM file of a transfer syntax, with sequences that say where they end and others that do not."""
    item = Dataset()
    item.CodeValue = "T-A0100"
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    dataset.AnatomicRegionSequence = Sequence([item])
    dataset.ProcedureCodeSequence = Sequence([item])
    dataset["ProcedureCodeSequence"].is_undefined_length = True
    dataset.PixelData = encapsulate([b"\xff\xd8" + bytes(99)]) if syntax == JPEGBaseline8Bit else bytes(512)
    dataset["PixelData"].is_undefined_length = syntax == JPEGBaseline8Bit
    dataset["PixelData"].VR = "OB" if syntax == JPEGBaseline8Bit else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    out = io.BytesIO()
    if is_headless:
        del dataset.file_meta
        dcmwrite(out, dataset, implicit_vr=True, little_endian=True, overwrite=False)
    else:
        dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


FILES = {
    "explicit": write_file(ExplicitVRLittleEndian),
    "implicit": write_file(ImplicitVRLittleEndian),
    "compressed": write_file(JPEGBaseline8Bit),
    "headless": write_file(ImplicitVRLittleEndian, is_headless=True),
}


@pytest.mark.parametrize("name", FILES)
def test_end_of_a_dicom_file_is_known(name: str) -> None:
    """Cut anywhere, it is not there to its end, but for cuts between two elements, of which only the pixels tell."""
    data = FILES[name]

    assert is_dicom_start(data)
    assert has_image_end(data) is True
    pixels = data.rindex(b"\xe0\x7f\x10\x00")
    for size in range(pixels + 1, len(data)):
        assert has_image_end(data[:size]) is False, size
    assert all(has_image_end(data[:size]) is not True for size in range(pixels))


def test_dicom_file_of_another_kind_has_no_known_end() -> None:
    """Big endian, nonsense: the server says what it is; and nothing of it is raised here."""
    data = FILES["explicit"]
    assert has_image_end(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0")) is None
    rng = random.Random(5)
    for _ in range(2000):
        broken = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            broken[rng.randrange(132, len(broken))] = rng.randrange(256)
        assert has_image_end(bytes(broken)) in (True, False, None)


def test_watch_judges_dicom_files(server: FakeServer, hot: Path) -> None:
    """Also those that a name does not tell, once they are there to their end; others are left out and recorded."""
    data = FILES["explicit"]
    with watching_here(hot, server.target, "--move", "--json") as watch:
        (hot / "1.2.840.7").write_bytes(data[:140])
        (hot / "scan.dcm").write_bytes(data)
        (hot / "note").write_text("...")
        (hot / "a.tif").write_bytes(b"II*\0")
        wait_for(lambda: (hot / "done" / "scan.dcm.json").exists())
        watch.let_pass()
        assert (hot / "1.2.840.7").exists()
        (hot / "1.2.840.7").write_bytes(data)
        wait_for(lambda: (hot / "done" / "1.2.840.7.json").exists())
        assert watch.stop() == 0

    assert server.servicer.images == [data, data]
    records = [json.loads(line) for line in watch.log.splitlines() if line.startswith("{")]
    left_out = [record["file"] for record in records if record.get("reason") == "LEFT_OUT"]
    assert left_out == [str(hot / "a.tif")]
    assert "left out, as all like it: file without a suffix" in watch.log


def test_results_beside_nameless_files_are_no_strangers(server: FakeServer, hot: Path) -> None:
    """``IM0001.json`` is the watch's own where there is an image of that name."""
    (hot / "IM0001").write_bytes(FILES["explicit"])
    for _ in range(2):
        with watching_here(hot, server.target) as watch:
            wait_for(lambda: (hot / "IM0001.json").exists())
            watch.let_pass()
            assert watch.stop() == 0
        assert "left out" not in watch.log
    assert len(server.servicer.images) == 1


def test_frame_of_a_file_is_asked_for(server: FakeServer, either: ClientKind) -> None:
    """Of one image and of many; the result carries it, and what is no frame is refused here."""
    assert either.call("predict", b"stroke", frame=3).frame == 3
    (one, two) = either.predict_many([b"stroke", b"normal"], frame=2)
    assert (one.frame, two.frame) == (2, 2)
    assert either.call("predict", b"stroke").frame == 0
    assert [request.frame for request in server.servicer.requests] == [3, 2, 2, 0]
    for frame in (-1, 2**31):
        with pytest.raises(ValueError, match="frame"):
            either.call("predict", b"stroke", frame=frame)


def test_frame_on_the_command_line(
    cli_server: FakeServer, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In JSON and in tables; empty where none was asked for."""
    assert main(["scans/b.png", "--frame", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frame"] == 3
    assert main(["scans", "--frame", "2", "--csv", "r.csv"]) == 0
    with open("r.csv", newline="") as table:
        assert {row["frame"] for row in csv.DictReader(table)} == {"2", ""}  # a folder below has a record, and none
    assert {request.frame for request in cli_server.servicer.requests} == {3, 2}


def test_new_reasons_and_scores_pass_through(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With their score, in every form; and with advice where people read."""

    def judge(request):
        response = make_refusal_to_judge(request)
        response.outlier_score = 17.25
        del response.reasons[:]
        response.reasons.add(reason="OUT_OF_DISTRIBUTION", message="Unlike all slices.")
        return response

    cli_server.servicer.judge = judge
    assert main(["scans/b.png"]) == 0
    assert "not analysed [OUT_OF_DISTRIBUTION] Unlike all slices." in capsys.readouterr().out
    assert main(["scans/b.png", "--json"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert (record["label"], record["outlier_score"], record["status"]) == (None, 17.25, "NOT_ANALYSED")
    assert err.startswith("scans/b.png: not analysed: Unlike all slices. Advice: see whether it is an upright axial")
    assert main(["scans/b.png", "scans/c.jpeg", "--csv", "r.csv", "--excel", "semicolon"]) == 0
    with open("r.csv", newline="", encoding="utf-8-sig") as table:
        rows = list(csv.DictReader(table, delimiter=";"))
    assert [(row["outlier_score"], row["reason"]) for row in rows] == [("17.25", "OUT_OF_DISTRIBUTION")] * 2


@pytest.mark.parametrize("score", [-1.0, float("nan"), float("inf")])
def test_outlier_score_that_is_none_is_not_taken(server: FakeServer, either: ClientKind, score: float) -> None:
    """Like other figures that cannot be."""

    def judge(request):
        response = make_response(request)
        response.outlier_score = score
        return response

    server.servicer.judge = judge
    with pytest.raises(ServerError) as caught:
        either.call("predict", b"stroke")
    assert caught.value.reason == "ANSWER_INVALID"


def test_refusal_of_a_dicom_file_is_the_images(server: FakeServer, either: ClientKind) -> None:
    """Not the request's, which would end a run."""
    server.servicer.raise_once(b"mr", RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "DICOM_MODALITY", "It is an MR."))

    one, two = either.predict_many([b"mr", b"stroke"])

    assert isinstance(one.error, InvalidImageError)
    assert two.label == "stroke"


def test_bench_says_what_folders_hold_beside_images(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, and in its object."""
    (scans / "a.tif").write_bytes(b"II*\0")
    assert main(["bench", "scans", "--seconds", "0.1", "--warmup", "0", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "1 TIFF file (scans/a.tif)" in json.loads(out)["left_out"]
    assert err.startswith("note: left out: ")
