"""``python -m gateway judge``: a folder's studies have all of their results, or none; nothing names a patient."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pydicom
import pytest

from client import ImageReadError, InvalidRequestError, ServerError, ServerUnavailableError
from gateway.cli import main
from gateway.folder import output
from gateway.judge import results
from tests.dicom_files import PATIENT
from tests.fakes import run_module, run_server, write_model
from tests.folder_box import judge, read_result, write_files
from tests.gateway_box import FakeClient, make_answer, make_files, make_object
from tests.studies import SERIES, STUDY, STUDY_SPEC
from tests.test_gateway_orthanc import find_command

OTHER = f"{STUDY}.9"
AWAY = ServerUnavailableError("no server answers", "SERVER_AWAY", "UNAVAILABLE")


def test_results_of_a_study_are_written(tmp_path: Path) -> None:
    """Report and page as DICOM files, and what is in which, for machines."""
    client, folder, out = FakeClient(), write_files(tmp_path / "in"), tmp_path / "out"

    assert judge(client, folder, out) == 0

    (study,) = read_result(out)["studies"]
    assert {file["kind"] for file in study["files"]} == {"sr", "sc"}
    for file in study["files"]:
        found = pydicom.dcmread(out / file["name"])
        assert (found.SOPInstanceUID, found.SeriesInstanceUID) == (
            file["sop_instance_uid"],
            file["series_instance_uid"],
        )
        assert found.StudyInstanceUID == study["study_instance_uid"] == STUDY
    assert (study["urgency"], study["label"], study["probability"]) == ("positive", "stroke", 0.9)
    assert out.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(one["name"] for one in study["files"]), "result.json"]
    )


def test_studies_are_told_apart_by_their_uid(tmp_path: Path) -> None:
    """Whatever folders they lie in."""
    client = FakeClient()
    write_files(tmp_path / "in" / "a", [*make_files(2), *make_files(3, OTHER, series=f"{SERIES}.7")])
    write_files(tmp_path / "in" / "b" / "c", make_files(4)[2:])

    assert judge(client, tmp_path / "in", tmp_path / "out") == 0

    studies = {one["study_instance_uid"]: one["images"] for one in read_result(tmp_path / "out")["studies"]}
    assert studies == {STUDY: 4, OTHER: 3}
    assert sorted(map(len, client.asked)) == [3, 4]


def test_what_is_no_image_is_counted_and_not_sent(tmp_path: Path) -> None:
    """Other files, links, pipes, objects that are no CT, and the same image twice."""
    client, folder = FakeClient(), write_files(tmp_path / "in")
    (folder / "report.txt").write_text("Doe^Jane")
    (folder / "cut.dcm").write_bytes(make_files(1)[0][:300])
    (folder / "again").write_bytes(make_files(1)[0])
    (folder / "link").symlink_to(folder / "Doe_Jane_0")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    (folder / "old-result.dcm").write_bytes(make_object(STUDY, f"{STUDY}.5"))
    (folder / "other-study.dcm").write_bytes(make_object(OTHER, f"{OTHER}.5"))

    assert judge(client, folder, tmp_path / "out") == 0

    assert [[path.name for path in paths] for paths in client.asked] == [["Doe_Jane_0", "Doe_Jane_1", "Doe_Jane_2"]]
    document = read_result(tmp_path / "out")
    counts = {"DICOM_UNREADABLE": 1, "LINK_OR_DEVICE": 3, "NOT_CT": 1, "NOT_DICOM": 1, "REPEATED": 1}
    assert document["files_left_out"] == counts
    assert [(one["reason"], one["objects"]) for one in document["studies"][0]["left_out"]] == [("NOT_CT", 1)]


@pytest.mark.parametrize("content", [{}, {"a.txt": b"text"}, {"a.dcm": make_object(STUDY, "1.2.3")}])
def test_nothing_to_judge_is_said_with_exit_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: dict[str, bytes]
) -> None:
    """And there is no folder of results."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)

    assert judge(FakeClient(), folder, tmp_path / "out", json=True) == 2

    said = capfd.readouterr()
    (line,) = said.err.splitlines()
    assert "there is no CT image in it" in line
    assert json.loads(said.out)["errors"][0]["reason"] == "NOTHING_TO_JUDGE"
    assert not (tmp_path / "out").exists()


def test_too_many_files_are_not_looked_at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """So that a wrong folder, such as a whole archive, is said at once."""
    assert judge(FakeClient(), write_files(tmp_path / "in"), tmp_path / "out", most_files=2) == 2
    assert "more than 2 files" in capfd.readouterr().err


def test_server_that_is_away_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, the reason, and no file."""
    client = FakeClient(AWAY)
    write_files(tmp_path / "in", [*make_files(2), *make_files(2, OTHER, series=f"{SERIES}.7")])

    assert judge(client, tmp_path / "in", tmp_path / "out", json=True) == 1

    said = capfd.readouterr()
    assert json.loads(said.out)["errors"][0]["reason"] == "SERVER_AWAY"
    assert "2 of 2 studies have no results (SERVER_AWAY)" in said.err
    assert len(client.asked) == 1  # the second would not have fared better
    assert not (tmp_path / "out").exists()


def test_study_that_the_server_refuses_has_results_that_say_so(tmp_path: Path) -> None:
    """As one that was not analysed."""
    client = FakeClient(InvalidRequestError("too large", "STUDY_TOO_LARGE", "RESOURCE_EXHAUSTED"))

    assert judge(client, write_files(tmp_path / "in"), tmp_path / "out") == 0

    (study,) = read_result(tmp_path / "out")["studies"]
    assert (study["urgency"], study["reasons"][0]["reason"]) == ("not-analysed", "STUDY_TOO_LARGE")


def test_failure_of_one_study_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Where it is that study's alone."""

    class Failing(FakeClient):
        def predict_study(self, images: list[Path]):
            self.outcome = make_answer() if self.asked else ServerError("failed", "INTERNAL", "INTERNAL")
            return super().predict_study(images)

    write_files(tmp_path / "in", [*make_files(2), *make_files(2, OTHER, series=f"{SERIES}.7")])

    assert judge(Failing(), tmp_path / "in", tmp_path / "out") == 1
    assert len(read_result(tmp_path / "out")["studies"]) == 1


def test_files_that_cannot_be_read_are_a_failure_and_not_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Their names may be patients'."""
    client = FakeClient(ImageReadError(f"{tmp_path}/in/Doe_Jane_0: gone", "IMAGE_UNREADABLE"))

    assert judge(client, write_files(tmp_path / "in"), tmp_path / "out", json=True) == 1

    said = capfd.readouterr()
    assert "IMAGE_UNREADABLE" in said.err
    assert "Doe" not in said.out + said.err


def test_result_that_cannot_be_made_is_said_without_what_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An error of a library may repeat a name."""

    def fail(*_: object) -> None:
        raise TypeError("Doe^Jane")

    monkeypatch.setattr(results, "make_results", fail)

    assert judge(FakeClient(), write_files(tmp_path / "in"), tmp_path / "out") == 1

    said = capfd.readouterr().err
    assert "RESULTS_NOT_MADE" in said
    assert "Doe" not in said


def test_what_was_judged_before_is_not_asked_for_again(tmp_path: Path) -> None:
    """Unless its images, or the results that are wanted, are others, a result has gone, or somebody wants it."""
    client, folder, out = FakeClient(), write_files(tmp_path / "in"), tmp_path / "out"
    for expected, options in (
        (1, {}),
        (1, {}),
        (2, {"again": True}),
        (3, {"results": ("sr",)}),
        (3, {"results": ("sr",)}),
    ):
        assert judge(client, folder, out, **options) == 0
        assert len(client.asked) == expected
    assert len(list(out.glob("*.dcm"))) == 1  # the page of before has gone with its entry

    next(out.glob("*.dcm")).unlink()
    assert judge(client, folder, out, results=("sr",)) == 0
    write_files(folder, make_files(4))
    assert judge(client, folder, out, results=("sr",)) == 0

    assert len(client.asked) == 5
    assert [one["images"] for one in read_result(out)["studies"]] == [4]


def test_result_that_is_half_written_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: what was there before is there, and nothing else."""
    folder, out = write_files(tmp_path / "in"), tmp_path / "out"
    assert judge(FakeClient(), folder, out) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    write, written = output.write_whole, list[Path]()

    def fail(path: Path, data: bytes) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, data)

    monkeypatch.setattr(output, "write_whole", fail)
    with pytest.raises(OSError, match=f"No space.*{out.name}'$"):
        judge(FakeClient(make_answer(digest="1" * 64)), folder, out, again=True)

    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_folder_of_results_belongs_to_one_process(tmp_path: Path) -> None:
    """Another one is told so; and what a process left that was ended is removed."""
    folder, out = write_files(tmp_path / "in"), tmp_path / "out"
    (out / ".results.part").mkdir(parents=True)
    descriptor = os.open(out, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError, match="another process writes there"):
        judge(FakeClient(), folder, out)
    os.close(descriptor)

    assert judge(FakeClient(), folder, out) == 0
    assert not list(out.glob(".*"))


def test_result_json_of_somebody_else_is_none(tmp_path: Path) -> None:
    """Names in it that lead elsewhere are not followed."""
    folder, out = write_files(tmp_path / "in"), tmp_path / "out"
    (tmp_path / "mine").write_text("x")
    out.mkdir()
    entry = {"study_instance_uid": STUDY, "files": [{"name": "../mine", "kind": "sr"}]}
    (out / "result.json").write_text(json.dumps({"studies": [entry]}))

    assert judge(FakeClient(), folder, out) == 0

    assert (tmp_path / "mine").exists()
    assert len(read_result(out)["studies"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing", "--out", "out"], "missing is no folder"),
        (["in", "--out", "in/out"], "--out must not be in the folder"),
        (["in"], "--out"),
        (["in", "--out", "out", "--results", "pdf"], "--results must be"),
        (["in", "--out", "out", "--server", ":"], "--server"),
    ],
)
def test_flags_that_cannot_be_used_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """With exit code 2 and one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()

    with pytest.raises(SystemExit) as exit_:
        main(["judge", *words])

    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_place_that_cannot_be_written_to_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Before the server is asked."""
    client, folder = FakeClient(), write_files(tmp_path / "in")
    (tmp_path / "file").write_text("x")

    assert judge(client, folder, tmp_path / "file") == 2
    assert judge(client, folder, tmp_path / "file" / "out") == 2

    assert capfd.readouterr().err.count("error: ") == 2
    assert client.asked == []


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the folder and of a server elsewhere."""
    with pytest.raises(SystemExit):
        main(["judge", "--help"])
    assert "examples:\n  python -m gateway judge study --out results" in capsys.readouterr().out


def test_real_server_judges_a_folder_and_nobody_is_named(tmp_path: Path) -> None:
    """By the command of docs/hospital.md; result.json, and what is printed, may be logged."""
    write_model(tmp_path / "models", STUDY_SPEC)
    folder, out = write_files(tmp_path / "in", make_files(8)), tmp_path / "out"
    with run_server(tmp_path / "models") as server:
        places = {"study": str(folder), "results": str(out), "127.0.0.1:50051": server.address}
        command = find_command("python -m gateway judge")[2:]
        assert places.keys() <= set(command)
        words = [places.get(word, word) for word in command]
        done = run_module(*words, "--results", "sr,sc,fhir,hl7")
    assert done.returncode == 0, done.stderr

    (study,) = read_result(out)["studies"]
    assert study["status"] == "ANALYSED"
    assert {file["kind"] for file in study["files"]} == {"sr", "sc", "fhir", "hl7"}
    said = done.stdout + done.stderr + (out / "result.json").read_text()
    for secret in (*PATIENT.values(), "Doe"):
        assert str(secret) not in said
