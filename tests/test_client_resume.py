"""python -m client --output and --csv with --resume: what is kept, what is done again, and what crashes leave."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest

from client.cli.main import main
from client.cli.result_file import ResultFile
from client.cli.results import JsonLinesFormat
from tests.client_fakes import FakeServer, RefusalError, make_response, serve, wait_for
from tests.command_lines import INTERRUPTIBLE
from tests.fakes import ROOT, ServerProcess, encode, make_slice

BOTH_FLAGS = pytest.mark.parametrize("flag", ["--output", "--csv"])


@pytest.fixture
def scans(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of eight images, the third of them bad, seen from the folder above; and a server that refuses it."""

    def judge(request):
        if request.image.startswith(b"bad"):
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The file is no image.")
        return make_response(request)

    server.servicer.judge = judge
    folder = tmp_path / "scans"
    folder.mkdir()
    for index in range(8):
        (folder / f"{index}.png").write_bytes(b"bad" if index == 2 else b"stroke %d" % index)
    monkeypatch.setenv("STROKE_SERVER", server.target)
    monkeypatch.chdir(tmp_path)
    return folder


def read_names(path: Path) -> list[str]:
    """The files of all records, in order."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as table:
            return [row["file"] for row in csv.DictReader(table)]
    return [json.loads(line)["file"] for line in path.read_text().splitlines()]


def start_client(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "client", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_run_killed_three_times_ends_complete(tiny_server: ServerProcess, tmp_path: Path) -> None:
    """2,000 slices, 50 of them bad, kill -9 three times: no file twice, none missed, 50 failures."""
    folder, output = tmp_path / "scans", tmp_path / "results.jsonl"
    folder.mkdir()
    slices = [encode(make_slice(90 + index, seed=index)) for index in range(40)]
    for index in range(2000):
        good = slices[index % 40] + b"%d" % index  # what follows a PNG's end is ignored, and makes its bytes its own
        (folder / f"{index:04}.png").write_bytes(b"no image" if index % 40 == 7 else good)
    command = (str(folder), "--server", tiny_server.address, "--output", str(output), "--resume")
    kills = 0
    for goal in (300, 800, 1300):
        with start_client(*command) as process:
            wait_for(lambda goal=goal: output.exists() and output.read_bytes().count(b"\n") >= goal)
            process.kill()
        kills += process.returncode == -signal.SIGKILL

    with start_client(*command) as process:
        _, errors = process.communicate(timeout=60)

    assert kills == 3
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert Counter(Path(record["file"]).name for record in records) == Counter(f"{i:04}.png" for i in range(2000))
    assert sum("label" not in record for record in records) == 50
    assert {record.get("reason") for record in records} == {None, "IMAGE_UNDECODABLE"}
    assert len({record["image_sha256"] for record in records if "label" in record}) == 1950
    assert process.returncode == 1
    assert "note: " in errors
    assert "done before" in errors


@BOTH_FLAGS
def test_resume_judges_only_what_is_left(
    flag: str, server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Done images are not sent again, however the folder is spelt; a kept failure still makes the exit status 1."""
    output = scans.parent / ("results.csv" if flag == "--csv" else "results.jsonl")
    assert main([flag, output.name, "scans/0.png", "scans/2.png", "scans/1.png"]) == 1
    sent = len(server.servicer.requests)

    assert main(["./scans/", flag, output.name, "--resume"]) == 1
    assert len(server.servicer.requests) == sent + 5
    assert main(["scans", flag, output.name, "--resume"]) == 1

    assert len(server.servicer.requests) == sent + 5
    assert [Path(name).name for name in read_names(output)] == [f"{i}.png" for i in (0, 2, 1, 3, 4, 5, 6, 7)]
    out, err = capsys.readouterr()
    assert out == ""
    assert "results of 3 images; 5 are left" in err
    assert "1 of them had failed: --retry-failed judges those again" in err
    assert "8 images: 3 done before, 5 positive (stroke), 0 failed; in all 7 positive (stroke), 1 failed; " in err
    assert "8 images: 8 done before, 0 failed; in all 7 positive (stroke), 1 failed\n" in err
    assert "results of 8 images; none is left to judge" in err


@BOTH_FLAGS
def test_failures_are_judged_again_on_request(flag: str, scans: Path) -> None:
    """--retry-failed replaces the record of a failure; the others stay."""
    output = scans.parent / ("results.csv" if flag == "--csv" else "results.jsonl")
    assert main(["scans", flag, output.name]) == 1
    (scans / "2.png").write_bytes(b"stroke")

    assert main(["scans", flag, output.name, "--resume", "--retry-failed"]) == 0

    assert [Path(name).name for name in read_names(output)] == [f"{i}.png" for i in (0, 1, 3, 4, 5, 6, 7, 2)]


def test_file_that_appears_is_judged(server: FakeServer, scans: Path) -> None:
    """A file that was missing is no kept failure once it is there."""
    assert main(["scans/9.png", "--output", "results.jsonl"]) == 1
    (scans / "9.png").write_bytes(b"stroke")

    assert main(["scans/9.png", "--output", "results.jsonl", "--resume"]) == 0

    assert len(read_names(scans.parent / "results.jsonl")) == 1


def test_changed_files_are_judged_again(server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Changed is what has another size, or another time and other bytes; the user is told."""
    main(["scans", "--output", "results.jsonl"])
    (scans / "3.png").write_bytes(b"stroke, but longer")
    (scans / "4.png").write_bytes(b"stroke x")
    os.utime(scans / "4.png", (1, 1))
    os.utime(scans / "5.png", (1, 1))  # copied, say: the bytes are the same
    (scans / "6.png").unlink()
    server.servicer.requests.clear()
    capsys.readouterr()

    main(["scans", "--output", "results.jsonl", "--resume"])

    assert server.servicer.images == [b"stroke, but longer", b"stroke x"]
    names = read_names(scans.parent / "results.jsonl")
    assert sorted(names) == [f"scans/{i}.png" for i in range(8)]
    assert "warning: 2 files have changed since and are judged again, scans/3.png first" in capsys.readouterr().err


def test_another_model_is_refused(server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results of two models do not mix by accident: the file stays as it is; exit 2, and how to go on."""

    def judge(request):
        response = make_response(request)
        response.model_digest, response.model_version = "cd" * 32, "7"
        return response

    server.servicer.judge = judge
    assert main(["scans/0.png", "--output", "results.jsonl"]) == 0
    before = (scans.parent / "results.jsonl").read_bytes()

    assert main(["scans", "--output", "results.jsonl", "--resume", "--retry-failed"]) == 2

    assert capsys.readouterr().err == (
        f"error: results.jsonl has results of stroke-cnn 7 (sha256 {'cd' * 6}), but the server now judges by "
        f"stroke-cnn 1 (sha256 {'ab' * 6}): choose the former with --model and --model-version, or name another file\n"
    )
    assert (scans.parent / "results.jsonl").read_bytes() == before


def test_model_that_changes_within_a_run_is_told(
    server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that loads another model meanwhile does not go unnoticed."""

    def judge(request):
        response = make_response(request)
        if request.image > b"stroke 4":
            response.model_digest, response.model_version = "cd" * 32, "2"
        return response

    server.servicer.judge = judge

    assert main(["scans/3.png", "scans/5.png", "scans/6.png", "--output", "results.jsonl"]) == 0

    (warning, summary) = capsys.readouterr().err.splitlines()
    assert warning == (
        f"scans/5.png: warning: from here on stroke-cnn 2 (sha256 {'cd' * 6}) judges, too; before it stroke-cnn 1"
    )
    assert summary.endswith("; by stroke-cnn 1, stroke-cnn 2")


def test_existing_results_are_not_overwritten(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --resume a file with results is refused: exit 2, how to go on, the file as it was."""
    main(["scans/0.png", "--output", "results.jsonl"])
    before = (scans.parent / "results.jsonl").read_bytes()
    capsys.readouterr()

    assert main(["scans", "--output", "results.jsonl"]) == 2

    expected = "error: results.jsonl exists: add --resume to go on with it, or name another file\n"
    assert capsys.readouterr().err == expected
    assert (scans.parent / "results.jsonl").read_bytes() == before


def test_results_of_other_images_are_remarked(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong folder shows before hours are spent on it."""
    main(["scans/0.png", "--output", "results.jsonl"])

    main(["scans/1.png", "scans/3.png", "--output", "results.jsonl", "--resume"])

    assert "warning: no result in results.jsonl is of these images" in capsys.readouterr().err


def test_second_run_on_a_file_is_refused(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, before anything is sent."""
    first = ResultFile("results.jsonl", JsonLinesFormat())
    try:
        assert main(["scans", "--output", "results.jsonl", "--resume"]) == 2
    finally:
        first.close()

    assert capsys.readouterr().err == (
        "error: results.jsonl is being written by another run: wait for it, or name another file\n"
    )


def test_output_must_be_a_regular_file(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A device or pipe cannot be resumed; what to use instead is said."""
    assert main(["scans", "--output", "/dev/null"]) == 2

    assert "/dev/null is no regular file: use --json" in capsys.readouterr().err


def test_output_in_a_missing_folder_is_one_line(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is named; exit 1."""
    done = subprocess.run(
        [sys.executable, "-m", "client", str(scans), "--output", "no/such/x.jsonl"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr == "error: the results cannot be written to no/such/x.jsonl: No such file or directory\n"


def test_server_that_dies_leaves_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results so far are in the file, the message says how to go on, and going on completes them."""
    monkeypatch.setattr("random.uniform", lambda low, high: 0.02)  # the pauses between the tries to reach it again
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "results.jsonl"
    (tmp_path / "scans").mkdir()
    for index in range(40):
        (tmp_path / "scans" / f"{index:02}.png").write_bytes(b"stroke")
    command = ["scans", "--output", "results.jsonl", "--in-flight", "2", "--timeout", "3"]

    def judge(request):
        if len(server.servicer.requests) > 15:
            wait_for(lambda: len(read_names(output)) == 15)
            threading.Thread(target=server.stop).start()
            server.servicer.hang(request)
        return make_response(request)

    with serve() as server:
        server.servicer.judge = judge
        assert main([*command, "--server", server.target, "--timeout", "2"]) == 1
    done = read_names(output)
    summary, error, note = capsys.readouterr().err.splitlines()
    with serve() as server:
        assert main([*command, "--server", server.target, "--resume"]) == 0

    assert 15 <= len(done) < 40
    assert f", {40 - len(done)} not judged; " in summary
    assert error.startswith("error: no server answers at 127.0.0.1:")
    assert note == "note: what is done is in results.jsonl; the same command with --resume goes on"
    assert read_names(output) == [f"scans/{index:02}.png" for index in range(40)]
    assert len(server.servicer.requests) == 40 - len(done)


def test_interrupted_run_keeps_whole_records(server: FakeServer, scans: Path) -> None:
    """Ctrl-C: exit 130, the summary, how to go on, and a file that ends with a whole line."""

    def judge(request):
        if request.image == b"stroke 5":
            return server.servicer.hang(request)
        return make_response(request)

    server.servicer.judge = judge
    output = scans.parent / "results.jsonl"
    with subprocess.Popen(
        [sys.executable, *INTERRUPTIBLE, str(scans), "--output", str(output)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: output.exists() and output.read_bytes().count(b"\n") == 5)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert time.monotonic() - started < 5
    assert len(read_names(output)) == 5
    summary, error, note = errors.splitlines()
    assert summary.startswith("8 images: 4 positive (stroke), 1 normal, 0 failed, 3 not judged; ")
    assert error == "error: interrupted"
    assert note == f"note: what is done is in {output}; the same command with --resume goes on"


def test_full_disk_ends_the_run_and_can_be_resumed(scans: Path) -> None:
    """One line names the file; when there is room again, the record that was cut off is judged again."""
    command = (str(scans), "--output", str(scans.parent / "results.jsonl"))
    # 1,500 bytes are a little less than three records. Set in a program of its own: a process with gRPC in it must not
    # run Python between fork and exec.
    set_limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)); "
    run_client = "os.execv(sys.executable, [sys.executable, '-m', 'client', *sys.argv[1:]])"
    process = subprocess.run(
        [sys.executable, "-c", set_limit + run_client, *command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == f"error: the results cannot be written to {command[2]}: File too large"
    assert Path(command[2]).stat().st_size == 1500
    assert main([*command, "--resume"]) == 1
    assert read_names(Path(command[2])) == [str(scans / f"{i}.png") for i in range(8)]


@BOTH_FLAGS
def test_folder_without_images_is_none_of_the_images_done(
    flag: str, server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said again by the exit status, and counted apart."""
    (scans.parent / "empty").mkdir()
    command = ["empty", "scans/0.png", "scans/1.png", flag, "results"]
    assert main(command) == 1
    capsys.readouterr()

    assert main([*command, "--resume"]) == 1

    err = capsys.readouterr().err
    assert "results has the results of 2 images; none is left to judge" in err
    assert (
        "2 images: 2 done before, 0 failed; in all 2 positive (stroke), 0 failed; 1 folder or pattern without images\n"
        in err
    )
