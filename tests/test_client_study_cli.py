"""Studies on the command line: which folders are some, what is printed of them, and what they do not go with."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import grpc
import pytest

from client import InvalidRequestError, StrokeClient
from client.cli.main import main
from proto import stroke_pb2
from tests.client_fakes import FakeServer, RefusalError, make_study_response, wait_for
from tests.command_lines import list_drawn, open_session, render_screen

DICOM = bytes(128) + b"DICM"


@pytest.fixture
def study(cli_server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with DICOM files of which one is a scout, and a text; the fake server tells slices by how they begin."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "study"
    folder.mkdir()
    for name, data in {"2.dcm": b"normal", "10.dcm": b"stroke", "1.dcm": b"scout", "notes.txt": b"."}.items():
        (folder / name).write_bytes(data)
    return folder


def test_folder_of_dicom_files_is_one_study(
    study: Path, cli_server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """One answer, the slice to look at first, what was left out and why; exit 0."""
    assert main(["study/"]) == 0

    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "study/: stroke  score 0.500 for stroke  (stroke-cnn 1, threshold 0.35, mean of 2 of 2 slices)",
        "study/: look first at study/10.dcm: slice 2 of 2, P(stroke) 0.900",
        "study/: left out: a series of 1 slice [LOCALIZER] A scout.",
    ]
    assert err == "note: left out: 1 .txt file (study/notes.txt)\n"
    assert [one.id for one in cli_server.servicer.slices] == ["000001", "000002", "000003"]
    assert cli_server.servicer.images == []


def test_files_without_a_suffix_make_a_study_too(
    study: Path, cli_server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """As archives name them."""
    (study / "1.2.840.7").write_bytes(DICOM)

    assert main(["study"]) == 0

    assert capsys.readouterr().out.startswith("study: stroke  score 0.500")
    assert len(cli_server.servicer.slices) == 4


def test_each_file_is_answered_on_demand(study: Path, cli_server: FakeServer) -> None:
    """As images are."""
    assert main(["study", "--each"]) == 0

    assert len(cli_server.servicer.images) == 3
    assert cli_server.servicer.slices == []


def test_folder_with_other_images_too_is_answered_file_by_file(
    study: Path, cli_server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody knows whether they belong together: it is said, and no file is without an answer."""
    (study / "a.png").write_bytes(b"stroke")

    assert main(["study"]) == 0

    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert err.startswith("note: study holds DICOM files and others: each is judged by itself (or --study)\n")
    assert cli_server.servicer.slices == []
    assert main(["study", "--study"]) == 0
    assert len(cli_server.servicer.slices) == 4


def test_folder_of_other_images_is_a_study_on_demand(
    scans: Path, cli_server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """In natural order; what lies in folders below is left out, and said, unless --recursive takes it."""
    assert main(["--study", "scans", "--slices"]) == 0
    out, err = capsys.readouterr()
    table = [line.split() for line in out.splitlines() if "analysed" in line]
    assert [row[-1] for row in table] == ["scans/a.JPG", "scans/B.PNG", "scans/b.png", "scans/c.jpeg"]
    assert [row[0] for row in table] == ["*", "2", "3", "4"]
    assert "1 folder that only --recursive looks into (scans/sub)" in err
    assert main(["--study", "scans", "--strict", "--quiet"]) == 1
    assert capsys.readouterr().err == ""

    assert main(["--study", "--recursive", "scans", "--strict"]) == 0
    assert cli_server.servicer.slices[-1].image == b"stroke sub/d.png"


def test_files_are_one_study_on_demand(study: Path, cli_server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Named one by one, or by a pattern that the shell has not expanded."""
    for words in (["study/10.dcm", "study/2.dcm"], ["study/*[02].dcm"]):
        cli_server.servicer.slices.clear()
        assert main(["--study", *words]) == 0
        assert [one.image for one in cli_server.servicer.slices] == [b"normal", b"stroke"]
        assert capsys.readouterr().out.startswith("study: stroke  score 0.500")


def test_several_folders_are_several_studies(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One answer each; one without a file that can be judged is said, and makes the exit status 1."""
    (study.parent / "other").mkdir()
    (study.parent / "other" / "1.dcm").write_bytes(b"scout")
    (study.parent / "empty").mkdir()

    assert main(["study", "other"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[3:] == [
        "other: not analysed [NO_SERIES] No series could be judged.  (stroke-cnn 1)",
        "other: NO_SERIES: Advice: see why each series was left out, and which files failed.",
        "other: left out: a series of 1 slice [LOCALIZER] A scout.",
    ]
    assert main(["--study", "study", "empty", "other"]) == 1
    out, err = capsys.readouterr()
    assert "empty: error: there is no PNG, JPEG or DICOM file in this folder\n" in err
    assert "other: not analysed" in out


def test_json_has_everything(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object for a study, on one line."""
    (study / "3.dcm").write_bytes(b"broken")

    assert main(["study", "--json"]) == 1

    out, err = capsys.readouterr()
    (answer,) = map(json.loads, out.splitlines())
    assert err.splitlines()[0] == "study/3.dcm: error: Bad."
    assert list(answer)[:9] == [
        *("file", "label", "score", "threshold", "top_k", "positive_label", "positive_labels", "status", "reasons"),
    ]
    assert (answer["file"], answer["label"], answer["score"], answer["status"]) == ("study", "stroke", 0.5, "ANALYSED")
    assert answer["first_look"] == {"file": "study/10.dcm", "frame": None}
    assert [(one["file"], one["position_mm"], one["positive_probability"]) for one in answer["slices"]] == [
        ("study/2.dcm", 0.0, 0.1),
        ("study/10.dcm", 5.0, 0.9),
    ]
    assert [(one["reason"], one["slices"]) for one in answer["left_out"]] == [("LOCALIZER", 1)]
    assert answer["failures"] == [{"file": "study/3.dcm", "frame": None, "error": "Bad.", "reason": "IMAGE_DAMAGED"}]
    assert answer["files_left_out"] == [{"file": "study/notes.txt", "kind": ".txt file"}]
    assert (answer["model"], answer["version"], answer["study_instance_uid"]) == ("stroke-cnn", "1", "1.2.3")


def test_study_that_fails_is_a_line_and_a_record(
    study: Path, cli_server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what the server said, and that its files may still be judged one by one."""

    def refuse(request):
        raise RefusalError(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_WITHOUT_STUDIES", "It judges no studies.")

    cli_server.servicer.take_slice = refuse

    assert main(["study", "--json"]) == 1

    out, err = capsys.readouterr()
    assert json.loads(out)["reason"] == "MODEL_WITHOUT_STUDIES"
    assert err == "study: error: It judges no studies.\nnote: --each judges its files one by one\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["study", "--csv", "r.csv"],
            "study is judged as one study, since it holds DICOM files: --csv is",
        ),
        (["study", "--output", "r.jsonl"], "--output is for images one by one (--each); of a study take --json"),
        (["study", "--output", "r", "--resume"], "--output is for images one by one (--each)"),
        (["--study", "study", "--frame", "2"], "--frame is for images one by one (--each)"),
        (["study", "study/2.dcm"], "and study/2.dcm is not: name them in two runs, or add --each"),
        (["--study", "study", "study/2.dcm"], "--study takes folders, each one study, or the files of one study"),
        (["--study", "-"], "--study reads files, not standard input"),
        (["--study", "--each", "study"], "--each is an answer for each file"),
        (["study/2.dcm", "--slices"], "--slices goes with a study"),
        (["--watch", "study", "--study"], "--watch judges each file as it arrives"),
    ],
)
def test_what_does_not_go_with_a_study_is_said(
    study: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is sent: exit 2."""
    with pytest.raises(SystemExit) as caught:
        main(words)

    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_study_on_a_terminal(study: Path, cli_server: FakeServer) -> None:
    """Progress while it is sent, and in the end the answer and the table of slices in columns."""
    for number in range(20, 60):
        (study / f"{number}.dcm").write_bytes(b"normal" + bytes(200_000))
    with open_session("study", "--slices", columns=100, cwd=study.parent, STROKE_SERVER=cli_server.target) as session:
        pass

    lines = render_screen(session.raw)
    assert lines[0].startswith("study: stroke  score 0.500 for stroke")
    assert re.match(r"^ *slice +mm +probability +answer +file", next(line for line in lines if "mm" in line))
    assert sum("study/" in line and "analysed" in line for line in lines) == 42
    assert any("/43" in part for part in list_drawn(session.raw))


def test_slice_without_an_answer_is_told_in_the_table(
    study: Path, cli_server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its reasons, in letters that drive no terminal."""

    def judge(requests):
        response = make_study_response(requests)
        response.slices[0].status = stroke_pb2.PredictResponse.NOT_ANALYSED
        response.slices[0].reasons.add(reason="INDETERMINATE\x1b[2J", message="Too near.")
        return response

    cli_server.servicer.judge_study = judge
    assert main(["study", "--slices"]) == 0
    out = capsys.readouterr().out
    assert "INDETERMINATE\\x1b[2J  study/2.dcm" in out
    assert "mean of 1 of 1 slices" in out


def test_half_a_folder_is_no_study(
    study: Path, cli_server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder below that cannot be read may hold the slice that matters: nothing is judged, by neither way in."""
    (study / "below").mkdir()
    (study / "below" / "9.dcm").write_bytes(b"stroke")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("below"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)

    assert main(["--recursive", "study"]) == 1
    assert "study: error: the folder cannot be read: study/below: Permission denied\n" in capsys.readouterr().err
    with StrokeClient(cli_server.target) as client, pytest.raises(InvalidRequestError) as caught:
        client.predict_study(study)
    assert caught.value.reason == "FOLDER_UNREADABLE"
    assert cli_server.servicer.slices == []


def test_interrupted_study_ends_at_the_server(study: Path, cli_server: FakeServer) -> None:
    """Ctrl-C: exit 130, and one line."""
    cli_server.servicer.judge_study = lambda requests: cli_server.servicer.released.wait(20)
    with open_session("study", columns=80, cwd=study.parent, STROKE_SERVER=cli_server.target) as session:
        wait_for(lambda: len(cli_server.servicer.slices) == 3)
        session.interrupt()

    assert session.process.returncode == 130
    assert render_screen(session.raw) == ["error: interrupted"]
